// node dev/main.mjs [fleet|first|hostile] [LINES A SECOND]
import { start } from './server.mjs'
import * as world from './world.mjs'

const [kind = 'fleet', rate = '1'] = process.argv.slice(2)
const server = await start({ port: Number(process.env.PORT ?? 9181), hosts: world[kind](Date.now()), rate: Number(rate), password: process.env.PASSWORD ?? null, state: { hostile: kind === 'hostile' } })
console.log(`the page: ${server.url}`)
