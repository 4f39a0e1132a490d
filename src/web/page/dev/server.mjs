// A development server for the page. It answers as docs/web.md describes, with made-up hosts. It is never shipped.
import { createServer } from 'node:http'
import { readFileSync } from 'node:fs'
import { gzipSync } from 'node:zlib'
import { extname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import * as world from './world.mjs'

const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8', '.css': 'text/css; charset=utf-8', '.svg': 'image/svg+xml' }
export const CSP = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"

/**
 * Starts a server on a free port, or on `port`. Options: hosts (of world.mjs), password, rate (log lines a second for each
 * container), quick (all intervals are one second).
 */
export async function start(options = {}) {
  const dist = options.dist ?? fileURLToPath(new URL('../dist', import.meta.url))
  const state = {
    hosts: options.hosts ?? world.fleet(Date.now()),
    password: options.password ?? null,
    rate: options.rate ?? 1,
    sessions: new Set(),
    wrong: 0,
    down: false,
    requests: [],
    sockets: new Set(),
    streams: new Set(),
    extra: [],
    ...options.state,
  }
  const find = (id) => state.hosts.find((host) => host.id === id)
  const listing = (now) => ({ now_at: now, hosts: state.hosts.map((host) => world.row(host, now)), problems: world.problems(state.hosts), history_error: state.historyError ?? null })
  const one = (host, now) => ({ row: world.row(host, now), problems: world.problems([host]), snapshot: world.snapshot(host, now) })

  const json = (request, response, value, status = 200, headers = {}) => {
    const body = Buffer.from(JSON.stringify(value))
    const zip = /gzip/.test(request.headers['accept-encoding'] ?? '') && body.length > 500
    response.writeHead(status, { 'Content-Type': 'application/json', ...(zip ? { 'Content-Encoding': 'gzip' } : {}), ...headers })
    response.end(zip ? gzipSync(body) : body)
  }

  const events = (request, response) => {
    response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' })
    response.write(': hello\n\n')
    const stop = []
    const send = (name, data, id) => response.write(`${id === undefined ? '' : `id: ${id}\n`}event: ${name}\ndata: ${JSON.stringify(data)}\n\n`)
    request.on('close', () => stop.forEach((each) => each()))
    return { send, every: (ms, work) => { const timer = setInterval(work, ms); stop.push(() => clearInterval(timer)) }, stop }
  }

  const linesBetween = (host, names, from, to, most) => {
    const lines = []
    for (const name of names) {
      const period = 1000 / state.rate
      let taken = 0
      for (let number = Math.ceil(to / period); number * period >= from - period && taken < most; number -= 1) {
        const line = world.logLine(host, name, number, period)
        if (line.at < from || line.at >= to) continue
        lines.push(line)
        taken += 1
      }
    }
    return lines.sort((a, b) => a.at - b.at).slice(-most)
  }

  const api = (request, response, url) => {
    const now = Date.now()
    const path = url.pathname.slice('/api/v1'.length)
    const cookie = /session=(\w+)/.exec(request.headers.cookie ?? '')?.[1]
    const user = state.password === null || state.sessions.has(cookie) ? 'admin' : null
    if (path === '/session') return json(request, response, { user, login: state.password !== null, version: '0.1.0', zone: 'Europe/Vienna' })
    if (path === '/login') {
      let body = ''
      request.on('data', (part) => (body += part))
      request.on('end', () => {
        if (state.wrong >= 5) return json(request, response, { error: 'too many wrong passwords' }, 429, { 'Retry-After': '30' })
        if (JSON.parse(body).password !== state.password) {
          state.wrong += 1
          return json(request, response, { error: 'wrong password' }, 401)
        }
        const key = String(Math.random()).slice(2)
        state.sessions.add(key)
        response.writeHead(204, { 'Set-Cookie': `session=${key}; HttpOnly; SameSite=Strict; Path=/` })
        return response.end()
      })
      return undefined
    }
    if (!user) return json(request, response, { error: 'log in first' }, 401)
    if (path === '/logout') {
      state.sessions.delete(cookie)
      response.writeHead(204)
      return response.end()
    }
    if (path === '/hosts') return json(request, response, listing(now))
    if (path === '/stream') {
      const id = url.searchParams.get('host')
      const host = id && find(id)
      if (id && !host) return json(request, response, { error: `there is no host ${id}` }, 404)
      const { send, every } = events(request, response)
      let last = ''
      const hosts = () => send('hosts', listing(Date.now()), Date.now())
      hosts()
      every(2000, hosts)
      if (host) {
        const tell = () => {
          const answer = one(host, Date.now())
          const text = `${answer.row.newest_at} ${answer.row.state}`
          if (text !== last) send('host', answer, Date.now())
          last = text
        }
        tell()
        every(500, tell)
      }
      return undefined
    }
    const parts = path.split('/').slice(1).map(decodeURIComponent)
    const host = parts[0] === 'hosts' ? find(parts[1]) : undefined
    if (!host) return json(request, response, { error: 'there is no such path or host' }, 404)
    const what = parts.slice(2).join('/')
    const number = (name, otherwise) => Number(url.searchParams.get(name) ?? otherwise)
    if (what === '') return json(request, response, one(host, now))
    if (what === 'history') {
      const from = number('from', now - 3_600_000)
      const to = number('to', now)
      const names = (url.searchParams.get('series') ?? '').split(',')
      let step = Math.max(host.interval, Math.ceil((to - from) / number('points', 600) / host.interval) * host.interval)
      const times = []
      const series = {}
      for (let at = Math.ceil(from / step) * step; at <= Math.min(to, now); at += step) {
        const values = world.figures(host, at)
        if (values === null && !times.length) continue
        times.push(at)
        for (const name of names) if (values === null || name in values) (series[name] ??= new Array(times.length - 1).fill(null)).push(values?.[name] ?? null)
      }
      const known = world.figures({ ...host, since: null, away: null, gap: null }, now) ?? {}
      for (const name of Object.keys(series)) if (!(name in known)) delete series[name]
      return json(request, response, { from_at: from, to_at: to, step_ms: step, times, series })
    }
    if (what === 'events') {
      const only = url.searchParams.get('container')
      return json(request, response, { events: host.events.filter((event) => event.at >= number('from', 0) && event.at <= number('to', now) && (!only || event.container === only)), more: false })
    }
    if (what === 'logs') {
      const names = (url.searchParams.get('containers') ?? '').split(',').filter(Boolean)
      const { send, every } = events(request, response)
      const tail = state.hostile ? [] : linesBetween(host, names, 0, now, number('tail', 200))
      if (request.headers['last-event-id'] === undefined && tail.length) send('lines', { lines: tail }, now)
      if (state.hostile) {
        send('lines', { lines: world.HOSTILE_LINES.map((text, index) => ({ id: `evil-${index}`, at: now - 1000 + index, container: names[0], stream: 'stdout', level: null, text, cut: text.length >= 16384 })) }, now)
        return undefined
      }
      let sent = Number(request.headers['last-event-id'] ?? now)
      every(50, () => {
        const until = Date.now()
        const lines = linesBetween(host, names, sent, until, 5000)
        sent = until
        if (lines.length) send('lines', { lines }, until)
        while (state.extra.length) send(...state.extra.shift())
      })
      return undefined
    }
    if (what === 'logs/older') {
      const name = url.searchParams.get('container')
      const before = number('before', now)
      const limit = number('limit', 500)
      const search = url.searchParams.get('search')
      const begin = now - 3_600_000
      let lines = linesBetween(host, [name], begin, before, search ? 5000 : limit)
      if (search) lines = lines.filter((line) => new RegExp(search.replace('(?i)', ''), 'i').test(line.text)).slice(-limit)
      return json(request, response, { lines, before: lines.length ? lines[0].at : null })
    }
    if (what === 'logs/download') {
      response.writeHead(200, { 'Content-Type': 'text/plain; charset=utf-8', 'Content-Disposition': 'attachment; filename="log.txt"' })
      return response.end(linesBetween(host, [url.searchParams.get('container')], number('from', 0), number('to', now), 5000).map((line) => `${new Date(line.at).toISOString()} ${line.text}\n`).join(''))
    }
    return json(request, response, { error: 'there is no such path' }, 404)
  }

  const server = createServer((request, response) => {
    const url = new URL(request.url, 'http://localhost')
    state.requests.push(url.pathname + url.search)
    if (state.down) return request.socket.destroy()
    response.setHeader('Content-Security-Policy', CSP)
    response.setHeader('X-Content-Type-Options', 'nosniff')
    if (url.pathname.startsWith('/api/v1/')) return api(request, response, url)
    // Every other path without a file is a view of the page.
    let name = url.pathname.slice(1)
    if (!/^[\w.-]+\.(js|css|svg)$/.test(name)) name = 'index.html'
    try {
      const body = readFileSync(join(dist, name))
      const zip = /gzip/.test(request.headers['accept-encoding'] ?? '')
      response.writeHead(200, { 'Content-Type': TYPES[extname(name)], ...(zip ? { 'Content-Encoding': 'gzip' } : {}) })
      return response.end(zip ? gzipSync(body) : body)
    } catch {
      response.writeHead(404)
      return response.end()
    }
  })
  server.on('connection', (socket) => {
    state.sockets.add(socket)
    socket.on('close', () => state.sockets.delete(socket))
  })
  await new Promise((done) => server.listen(options.port ?? 0, '127.0.0.1', done))
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    state,
    /** Cuts all connections, and refuses new ones while `down` is true. */
    cut(down) {
      state.down = down
      for (const socket of state.sockets) socket.destroy()
    },
    stop() {
      for (const socket of state.sockets) socket.destroy()
      return new Promise((done) => server.close(done))
    },
  }
}
