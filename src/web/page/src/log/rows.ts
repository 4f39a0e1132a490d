// The rows of a log: bounded, in the order of time, each with its place in the list.
import type { Level } from '../types'
import { matches, type Row } from './text'

export const MOST_ROWS = 20_000
// Lines of several streams can come a little late. So many rows at the end are put in order again.
const REORDERED = 500
// Work on all rows is done in slices of this length, so that the page answers between them.
const SLICE_MS = 6

const LEVELS: Record<string, (Level | null)[]> = {
  info: ['info', 'warn', 'error'],
  warn: ['warn', 'error'],
  error: ['error'],
}

export interface Filter {
  search: RegExp | null
  only: boolean
  level: string
}

export class Rows {
  /** All rows that are kept. */
  all: Row[] = []
  /** Those that the filter lets through, with their places. */
  view: Row[] = []
  hits = 0
  /** Whether a filter is still being applied. */
  filtering = false
  filter: Filter = { search: null, only: false, level: '' }
  private ids = new Set<string>()
  private generation = 0
  private measure: (row: Row) => number = () => 20

  private key = (row: Row) => `${row.source} ${row.line!.id}`

  has(row: Row) {
    return row.line !== null && this.ids.has(this.key(row))
  }

  private passes(row: Row): boolean {
    const { search, only, level } = this.filter
    row.hit = row.line !== null && search !== null && matches(row, search)
    if (row.line === null) return true
    if (only && search && !row.hit) return false
    return !level || (LEVELS[level]?.includes(row.line.level) ?? true)
  }

  get base() {
    return this.view[0]?.top ?? 0
  }

  get height() {
    const last = this.view.at(-1)
    return last ? last.top + last.height - this.base : 0
  }

  private place(row: Row) {
    const last = this.view.at(-1)
    row.top = last ? last.top + last.height : 0
    row.height = this.measure(row)
    this.view.push(row)
  }

  /** Adds rows at the end, and forgets the oldest beyond the limit. Returns the height of what was forgotten. */
  append(batch: Row[]): number {
    let fresh = batch.filter((row) => !this.has(row))
    if (!fresh.length) return 0
    for (const row of fresh) if (row.line) this.ids.add(this.key(row))
    const earliest = fresh.reduce((least, row) => Math.min(least, row.at), Infinity)
    let taken = 0
    while (taken < REORDERED && taken < this.all.length && this.all[this.all.length - 1 - taken]!.at > earliest) taken += 1
    if (taken) {
      const back = this.all.splice(this.all.length - taken)
      const numbers = new Set(back.map((row) => row.number))
      while (this.view.length && numbers.has(this.view.at(-1)!.number)) if (this.view.pop()!.hit) this.hits -= 1
      fresh = back.concat(fresh)
    }
    fresh.sort((a, b) => a.at - b.at || a.number - b.number)
    for (const row of fresh) {
      this.all.push(row)
      if (!this.passes(row)) continue
      if (row.hit) this.hits += 1
      this.place(row)
    }
    return this.forgetOldest()
  }

  private forgetOldest(): number {
    const excess = this.all.length - MOST_ROWS
    if (excess <= 0) return 0
    const before = this.base
    const gone = this.all.splice(0, excess)
    for (const row of gone) if (row.line) this.ids.delete(this.key(row))
    const last = gone.at(-1)!
    const numbers = new Set(gone.map((row) => row.number))
    let count = 0
    while (count < this.view.length && this.view[count]!.at <= last.at && numbers.has(this.view[count]!.number)) {
      if (this.view[count]!.hit) this.hits -= 1
      count += 1
    }
    if (!count) return 0
    const end = this.view[count - 1]!
    const lost = end.top + end.height - before
    this.view.splice(0, count)
    return lost
  }

  /** Adds older rows, and forgets the newest beyond the limit. Returns whether some were forgotten. */
  prepend(batch: Row[]): boolean {
    const fresh = batch.filter((row) => !this.has(row))
    if (!fresh.length) return false
    for (const row of fresh) if (row.line) this.ids.add(this.key(row))
    fresh.sort((a, b) => a.at - b.at || a.number - b.number)
    const first = this.all[0]
    this.all = fresh.concat(this.all)
    const fits = this.all.length <= MOST_ROWS
    if (fits && !this.filtering && (!first || fresh.at(-1)!.at <= first.at)) {
      // The usual case: only the new rows get places, above the first one.
      const front = fresh.filter((row) => this.passes(row))
      let top = this.base
      for (const row of front.slice().reverse()) {
        row.height = this.measure(row)
        top -= row.height
        row.top = top
        if (row.hit) this.hits += 1
      }
      this.view = front.concat(this.view)
      return false
    }
    this.all.sort((a, b) => a.at - b.at || a.number - b.number)
    const excess = Math.max(0, this.all.length - MOST_ROWS)
    if (excess) {
      for (const row of this.all.splice(MOST_ROWS)) if (row.line) this.ids.delete(this.key(row))
    }
    this.generation += 1
    this.filtering = false
    this.view = []
    this.hits = 0
    for (const row of this.all) {
      if (!this.passes(row)) continue
      if (row.hit) this.hits += 1
      this.place(row)
    }
    return excess > 0
  }

  clear() {
    this.generation += 1
    this.filtering = false
    this.all = []
    this.view = []
    this.hits = 0
    this.ids.clear()
  }

  /** Applies a filter to all rows, the newest first and in slices. `step` is called after each slice. */
  refilter(filter: Filter, step: () => void) {
    this.filter = filter
    const generation = ++this.generation
    const old = this.all.slice()
    this.view = []
    this.hits = 0
    const slice = () => {
      if (generation !== this.generation) return
      const end = performance.now() + SLICE_MS
      const front: Row[] = []
      let top = this.view[0]?.top ?? 0
      while (old.length && performance.now() < end) {
        const row = old.pop()!
        if (!this.passes(row)) continue
        if (row.hit) this.hits += 1
        row.height = this.measure(row)
        top -= row.height
        row.top = top
        front.push(row)
      }
      this.view = front.reverse().concat(this.view)
      this.filtering = old.length > 0
      step()
      if (old.length) setTimeout(slice)
    }
    slice()
  }

  /** Places all rows again, after the width has changed. */
  remeasure(measure: (row: Row) => number) {
    this.measure = measure
    let top = this.base
    for (const row of this.view) {
      row.height = measure(row)
      row.top = top
      top += row.height
    }
  }

  /** Corrects the height of one row by what the browser shows. */
  correct(index: number, height: number): number {
    const change = height - this.view[index]!.height
    if (Math.abs(change) < 0.5) return 0
    this.view[index]!.height = height
    for (let after = index + 1; after < this.view.length; after += 1) this.view[after]!.top += change
    return change
  }

  /** The index of the row at a distance from the top of the list. */
  at(distance: number): number {
    const wanted = this.base + distance
    let low = 0
    let high = this.view.length - 1
    while (low < high) {
      const middle = (low + high + 1) >> 1
      if (this.view[middle]!.top <= wanted) low = middle
      else high = middle - 1
    }
    return low
  }
}
