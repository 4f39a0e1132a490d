import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'

let folder
let m

before(async () => {
  // Node's own type stripping is not in every version that can build the page.
  folder = mkdtempSync(join(tmpdir(), 'page-'))
  const source = (name) => JSON.stringify(fileURLToPath(new URL(`../src/${name}`, import.meta.url)))
  const names = ['format.ts', 'log/text.ts', 'log/rows.ts', 'merge.ts', 'scale.ts']
  await build({
    stdin: { contents: names.map((name) => `export * from ${source(name)}`).join('\n'), resolveDir: fileURLToPath(new URL('..', import.meta.url)) },
    bundle: true, format: 'esm', outfile: join(folder, 'units.mjs'), logLevel: 'warning',
  })
  m = await import(join(folder, 'units.mjs'))
})
after(() => rmSync(folder, { recursive: true }))

const GIB = 1024 ** 3

test('figures have their units', () => {
  assert.equal(m.bytesText(0), '0 B')
  assert.equal(m.bytesText(1023), '1023 B')
  assert.equal(m.bytesText(1023.6), '1.0 KiB')
  assert.equal(m.bytesText(15 * 1024 ** 2), '15 MiB')
  assert.equal(m.bytesText(32 * GIB), '32.0 GiB')
  assert.equal(m.bytesText(null), '–')
  assert.equal(m.percentText(9.96), '10 %')
  assert.equal(m.percentText(NaN), '–')
  assert.equal(m.span(90_000), '90 s')
  assert.equal(m.span(4 * 60_000), '4 min')
  assert.equal(m.span(12 * 86_400_000), '12 d')
})

test('text of others cannot hide or reorder anything', () => {
  assert.equal(m.plain('a b\tc'), 'a b\tc')
  assert.equal(m.plain('\u001b[31mred\u001b[0m'), 'red')
  assert.equal(m.plain('\u001b]8;;http://x\u0007link\u001b]8;;\u0007'), 'link')
  assert.equal(m.plain('\u202Egnp.exe'), '[U+202E]gnp.exe')
  assert.equal(m.plain('a\u0000b'), 'a\u2400b')
  assert.equal(m.plain('line\r'), 'line')
})

test('a JSON line shows its message and its fields', () => {
  const row = m.rowOf({ id: '1', at: 0, container: 'web', stream: 'stdout', level: 'info', text: '{"time":"x","level":"info","msg":"hi","n":1,"s":"t"}' }, 'h')
  assert.equal(row.text, 'hi')
  assert.equal(row.fields, 'n=1 s=t')
  assert.equal(m.jsonOf('{"a":'), null)
  assert.equal(m.jsonOf('[1]'), null)
})

test('a search is text, or an expression between slashes', () => {
  assert.ok(m.searchOf('a.b').test('xA.By'))
  assert.ok(!m.searchOf('a.b').test('aXb'))
  assert.ok(m.searchOf('/a.b/').test('aXb'))
  assert.equal(m.searchOf('/(/'), undefined)
  assert.equal(m.searchOf(''), null)
})

const line = (id, at, container = 'web', level = 'info') => m.rowOf({ id: String(id), at, container, stream: 'stdout', level, text: `line ${id}` }, 'h')

test('rows are in the order of time, each once', () => {
  const rows = new m.Rows()
  rows.append([line(1, 10), line(2, 20), line(3, 30)])
  rows.append([line(4, 25, 'api'), line(3, 30), line(5, 40)])
  assert.deepEqual(rows.all.map((row) => row.at), [10, 20, 25, 30, 40])
  assert.deepEqual(rows.view.map((row) => row.at), [10, 20, 25, 30, 40])
  rows.view.forEach((row, index) => assert.equal(row.top, rows.view[0].top + index * 20))
})

test('rows are bounded: the oldest go', () => {
  const rows = new m.Rows()
  for (let batch = 0; batch < 5; batch += 1) rows.append(Array.from({ length: 6000 }, (_, index) => line(batch * 6000 + index, batch * 6000 + index)))
  assert.equal(rows.all.length, m.MOST_ROWS)
  assert.equal(rows.view.length, m.MOST_ROWS)
  assert.equal(rows.all[0].at, 10_000)
  assert.equal(rows.height, m.MOST_ROWS * 20)
  // What was forgotten can come again.
  assert.equal(rows.has(line(5, 5)), false)
  assert.equal(rows.prepend([line(5, 5)]), true)
  assert.equal(rows.all.length, m.MOST_ROWS)
})

test('a filter by level and by hits', async () => {
  const rows = new m.Rows()
  rows.append([line(1, 1), line(2, 2, 'web', 'error'), line(12, 3, 'web', 'warn')])
  const filtered = (filter) => new Promise((done) => rows.refilter(filter, () => done(rows.view.map((row) => row.at))))
  assert.deepEqual(await filtered({ search: null, only: false, level: 'warn' }), [2, 3])
  assert.deepEqual(await filtered({ search: m.searchOf('2'), only: true, level: '' }), [2, 3])
  assert.equal(rows.hits, 2)
  assert.deepEqual(await filtered({ search: m.searchOf('2'), only: false, level: '' }), [1, 2, 3])
  rows.append([line(4, 4, 'web', 'debug')])
  assert.deepEqual(rows.view.map((row) => row.at), [1, 2, 3, 4])
})

test('a row is found by its distance from the top', () => {
  const rows = new m.Rows()
  rows.append(Array.from({ length: 100 }, (_, index) => line(index, index)))
  assert.equal(rows.at(0), 0)
  assert.equal(rows.at(39.5), 1)
  assert.equal(rows.at(1e9), 99)
  assert.equal(rows.correct(10, 60), 40)
  assert.equal(rows.height, 2040)
  assert.equal(rows.at(11 * 20 + 39), 10)
})

test('newer points are added, and a pause is a gap', () => {
  const before = { from: 0, to: 30, step: 10, times: [0, 10, 20], series: { a: [1, 2, 3] } }
  const tail = (times, a) => ({ from_at: 0, to_at: 0, step_ms: 10, times, series: { a } })
  assert.deepEqual(m.merged(before, tail([20, 30], [4, 5]), 10, 40), { from: 10, to: 40, step: 10, times: [10, 20, 30], series: { a: [2, 4, 5] } })
  const gap = m.merged(before, tail([90], [9]), 0, 90)
  assert.deepEqual(gap.series.a, [1, 2, 3, null, 9])
  assert.deepEqual(gap.times, [0, 10, 20, 30, 90])
  // A series that is new has no figures before.
  assert.deepEqual(m.merged(before, { ...tail([30], [4]), series: { a: [4], b: [1] } }, 0, 30).series.b, [null, null, null, 1])
})

test('axes end at round figures', () => {
  assert.equal(m.roundUp(7, false), 8)
  assert.equal(m.roundUp(101, false), 120)
  assert.equal(m.roundUp(3.2 * 1024 ** 2, true), 4 * 1024 ** 2)
  assert.equal(m.roundUp(900 * 1024, true), 1000 * 1024)
  assert.equal(m.roundUp(1.3 * 1024 ** 2, true), 2 * 1024 ** 2)
  assert.equal(m.roundUp(0, false), 1)
})
