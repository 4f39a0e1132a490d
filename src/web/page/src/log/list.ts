// The list of a log in the document. It holds only the rows that can be seen. It is written without the framework, because
// thousands of rows pass through it every second.
import { bare, iso, plain, stamp } from '../format'
import { texts } from '../texts'
import { bytesText } from '../format'
import { noteOf, appendMarked, type Row } from './text'
import { MOST_ROWS, Rows, type Filter } from './rows'

const ROW = 20
// This many rows above and below the visible ones are created too, for scrolling.
const BEYOND = 12
// The height of the line of text above the rows, as in style.css.
const TOP_LINE = 28
// The list changes at most this often; a person cannot read faster, and the page has time for other things.
const PAUSE_MS = 50
const PHONE = '(max-width: 640px)'

export interface ListState {
  following: boolean
  waiting: number
  rows: number
  hits: number
  shown: number
  /** Whether all rows fit on the screen, so that nobody can scroll up. */
  short: boolean
  /** Whether there is room for a line of text above the rows. */
  roomy: boolean
}

export interface ListOptions {
  /** The number of a source's colour. */
  colour: (source: string) => number
  /** What stands before the text, or null if all rows are of one container. */
  name: ((row: Row) => string) | null
  changed: (state: ListState) => void
  chosen: (row: Row | null) => void
  top: () => void
  restart: () => void
}

export class LogList {
  rows = new Rows()
  following = true
  private space = document.createElement('div')
  private window = document.createElement('div')
  private shown = new Map<number, HTMLElement>()
  private incoming: Row[] = []
  private held: Row[] = []
  private notKept = 0
  private endForgotten = false
  private beyond = BEYOND
  private frame = 0
  private flushed = 0
  private character = 7.8
  private selected: number | null = null
  private observer: ResizeObserver
  private width = 0

  constructor(private element: HTMLElement, private options: ListOptions) {
    this.space.className = 'log-space'
    this.space.setAttribute('role', 'presentation')
    this.window.className = 'log-window'
    this.window.setAttribute('role', 'presentation')
    this.space.append(this.window)
    element.append(this.space)
    element.addEventListener('scroll', this.scrolled, { passive: true })
    element.addEventListener('wheel', this.wheeled, { passive: true })
    element.addEventListener('click', this.clicked)
    this.observer = new ResizeObserver(() => this.resized())
    this.observer.observe(element)
    this.resized()
  }

  destroy() {
    cancelAnimationFrame(this.frame)
    this.observer.disconnect()
    this.element.removeEventListener('scroll', this.scrolled)
    this.element.removeEventListener('wheel', this.wheeled)
    this.element.removeEventListener('click', this.clicked)
    this.space.remove()
  }

  private report() {
    // The list is lower while there is a line of text above it. The frame always has the same height.
    const height = this.element.parentElement?.clientHeight ?? 0
    this.options.changed({
      following: this.following,
      waiting: this.held.length + this.notKept,
      rows: this.rows.all.length,
      hits: this.rows.hits,
      shown: this.rows.view.length,
      short: this.rows.height < height,
      roomy: this.rows.height + TOP_LINE <= height,
    })
  }

  private resized() {
    const { clientWidth } = this.element
    if (clientWidth && clientWidth !== this.width) {
      this.width = clientWidth
      const probe = document.createElement('div')
      probe.className = 'log-row'
      const text = document.createElement('span')
      text.className = 'log-text'
      text.textContent = 'm'.repeat(100)
      text.style.position = 'absolute'
      text.style.whiteSpace = 'pre'
      probe.append(text)
      this.window.append(probe)
      this.character = text.getBoundingClientRect().width / 100 || 7.8
      probe.remove()
      const anchor = this.anchor()
      this.rows.remeasure(this.measure())
      for (const row of this.shown.values()) row.remove()
      this.shown.clear()
      this.restore(anchor)
    }
    if (this.following) this.pin()
    this.render()
    // The chosen line stays on the screen when its details take a part of the height.
    const index = this.selected === null ? -1 : this.rows.view.findIndex((row) => row.number === this.selected)
    if (index >= 0) this.reveal(index)
  }

  /** The height of a row, from the number of its characters. Rows with other characters are corrected after they were shown. */
  private measure() {
    const phone = matchMedia(PHONE).matches
    // As in the style sheet: the bar and the gaps at the sides, then on a wide screen the columns of time and name.
    const name = this.options.name
    const prefix = phone ? 9 : 13 + (name ? 20 : 0)
    const columns = Math.max(10, Math.floor((this.width - (phone ? 13 : 20)) / this.character + 0.001) - (phone ? 0 : prefix))
    return (row: Row) => {
      if (!row.line) return ROW
      const fields = row.fields ? row.fields.length + (row.text ? 2 : 0) : 0
      const more = row.cutBytes ? texts.log.more(bytesText(row.cutBytes)).length + 1 : 0
      const lead = phone ? prefix + (name ? name(row).length + 2 : 0) : 0
      return ROW * Math.max(1, Math.ceil((lead + row.text.length + fields + more) / columns))
    }
  }

  /** Takes new rows; they are shown with the next frame. */
  add(rows: Row[]) {
    for (const row of rows) this.incoming.push(row)
    // A page in the background gets no frames.
    if (this.incoming.length > MOST_ROWS) {
      this.notKept += this.incoming.length - MOST_ROWS
      this.incoming.splice(0, this.incoming.length - MOST_ROWS)
    }
    this.schedule()
  }

  private schedule() {
    if (this.frame) return
    this.frame = requestAnimationFrame(() => {
      this.frame = 0
      if (performance.now() - this.flushed < PAUSE_MS) {
        this.schedule()
        return
      }
      this.flush()
    })
  }

  private flush() {
    const before = this.flushed
    this.flushed = performance.now()
    const batch = this.incoming
    this.incoming = []
    if (this.following) {
      // If many lines come, each frame replaces all rows, so only the visible ones are created.
      this.beyond = batch.length > BEYOND && this.flushed - before < 2 * PAUSE_MS ? 0 : BEYOND
      this.rows.append(this.held.length || this.notKept ? this.takeHeld(batch) : batch)
      this.render()
      this.pin()
    } else if (batch.length) {
      for (const row of batch) this.held.push(row)
      const excess = this.held.length - MOST_ROWS
      if (excess > 0) {
        this.held.splice(0, excess)
        this.notKept += excess
      }
    }
    this.report()
  }

  private takeHeld(batch: Row[]): Row[] {
    const rows = this.held.concat(batch)
    if (this.notKept) rows.unshift(noteOf(texts.log.notKept(String(this.notKept)), rows[0]?.at ?? Date.now(), ''))
    this.held = []
    this.notKept = 0
    return rows
  }

  /** Adds older rows above. What is being read stays in its place. */
  addOlder(rows: Row[]) {
    const anchor = this.anchor()
    if (this.rows.prepend(rows)) this.endForgotten = true
    this.restore(anchor)
    this.render()
    this.report()
  }

  private anchor(): { number: number; distance: number } | null {
    const { view } = this.rows
    if (!view.length || this.following) return null
    const row = view[this.rows.at(this.element.scrollTop)]!
    return { number: row.number, distance: this.element.scrollTop - (row.top - this.rows.base) }
  }

  private restore(anchor: { number: number; distance: number } | null) {
    this.space.style.height = `${this.rows.height}px`
    if (!anchor) return
    const row = this.rows.view.find((other) => other.number === anchor.number)
    if (row) this.element.scrollTop = row.top - this.rows.base + anchor.distance
  }

  clear() {
    this.rows.clear()
    this.incoming = []
    this.held = []
    this.notKept = 0
    this.endForgotten = false
    this.selected = null
    this.render()
    this.report()
  }

  refilter(filter: Filter) {
    for (const row of this.shown.values()) row.remove()
    this.shown.clear()
    const anchor = this.anchor()
    this.rows.refilter(filter, () => {
      if (this.following) {
        this.render()
        this.pin()
      } else {
        this.restore(anchor)
        this.render()
      }
      this.report()
    })
  }

  private pin() {
    this.element.scrollTop = this.element.scrollHeight
  }

  follow() {
    this.following = true
    if (this.endForgotten) {
      this.clear()
      this.options.restart()
      return
    }
    this.flush()
    this.pin()
    this.render()
    this.report()
  }

  pause() {
    if (!this.following) return
    this.following = false
    this.render()
    this.report()
  }

  private wheeled = (event: WheelEvent) => {
    if (event.deltaY < 0 && this.element.scrollHeight > this.element.clientHeight) this.pause()
  }

  private scrolled = () => {
    const { scrollTop, clientHeight, scrollHeight } = this.element
    const end = scrollTop + clientHeight >= scrollHeight - 4
    if (end && !this.following && !this.endForgotten) this.follow()
    else if (!end && this.following) this.pause()
    this.render()
    if (scrollTop < 400 && !this.following && !this.rows.filtering) this.options.top()
  }

  private clicked = (event: MouseEvent) => {
    if (getSelection()?.toString()) return
    const element = (event.target as Element).closest<HTMLElement>('.log-row[data-number]')
    if (element) this.choose(Number(element.dataset.number))
  }

  choose(number: number | null) {
    const before = this.selected
    this.selected = number
    for (const which of [before, number]) {
      const element = which === null ? undefined : this.shown.get(which)
      element?.setAttribute('aria-selected', String(which === number))
    }
    if (number === null) this.element.removeAttribute('aria-activedescendant')
    else {
      this.pause()
      this.element.setAttribute('aria-activedescendant', `log-row-${number}`)
    }
    this.options.chosen(number === null ? null : (this.rows.view.find((row) => row.number === number) ?? null))
  }

  get selectedRow(): Row | null {
    return this.rows.view.find((row) => row.number === this.selected) ?? null
  }

  private reveal(index: number) {
    const row = this.rows.view[index]!
    const top = row.top - this.rows.base
    const { scrollTop, clientHeight } = this.element
    if (top < scrollTop + ROW) this.element.scrollTop = top - ROW * 3
    else if (top + row.height > scrollTop + clientHeight - ROW) this.element.scrollTop = top + row.height - clientHeight + ROW * 3
    this.render()
  }

  /** Moves the choice by rows, or with `hits` to the next row with a hit. */
  move(by: number, hits = false) {
    const { view } = this.rows
    if (!view.length) return
    let index = this.selected === null ? -1 : view.findIndex((row) => row.number === this.selected)
    if (index < 0) index = by > 0 && !this.following ? this.rows.at(this.element.scrollTop) - 1 : view.length
    const wanted = (row: Row) => row.line !== null && (!hits || row.hit)
    let next = index + by
    while (next >= 0 && next < view.length && !wanted(view[next]!)) next += by
    if (next < 0 || next >= view.length) return
    this.pause()
    this.choose(view[next]!.number)
    this.reveal(next)
  }

  /** Chooses the row with an id, or the one nearest to a time. Returns false if there is none. */
  chooseLine(id: string, at: number): boolean {
    const { view } = this.rows
    let best = -1
    view.forEach((row, index) => {
      if (!row.line) return
      if (best < 0 || row.line.id === id || (view[best]!.line!.id !== id && Math.abs(row.at - at) < Math.abs(view[best]!.at - at))) best = index
    })
    if (best < 0) return false
    this.following = false
    this.choose(view[best]!.number)
    this.element.scrollTop = view[best]!.top - this.rows.base - this.element.clientHeight / 2
    this.render()
    return true
  }

  private make(row: Row): HTMLElement {
    const element = document.createElement('div')
    if (!row.line) {
      element.className = 'log-row note'
      element.setAttribute('role', 'option')
      element.setAttribute('aria-disabled', 'true')
      element.setAttribute('aria-selected', 'false')
      element.textContent = row.text
      return element
    }
    const { line } = row
    element.className = `log-row ${line.level ?? ''} ${line.stream === 'stderr' ? 'stderr' : ''}`
    element.id = `log-row-${row.number}`
    element.dataset.number = String(row.number)
    element.setAttribute('role', 'option')
    element.setAttribute('aria-selected', String(row.number === this.selected))
    const part = (name: string, text: string) => {
      const span = document.createElement('span')
      span.className = name
      span.textContent = text
      element.append(span)
      return span
    }
    const phone = matchMedia(PHONE).matches
    if (line.level === 'error' || line.level === 'warn') part('hidden', `${line.level} `)
    const clock = stamp(row.at)
    part('log-time', phone ? `${clock.slice(0, 8)} ` : clock).title = iso(row.at)
    const { name } = this.options
    if (name) {
      const label = name(row)
      const holder = part('log-name', phone ? `${label} ` : label)
      holder.title = `${row.host} ${plain(bare(line.container))}`
      holder.dataset.colour = String(this.options.colour(row.source))
    }
    const text = document.createElement('bdi')
    text.className = 'log-text'
    const search = this.rows.filter.search
    appendMarked(text, row.text, search)
    if (row.cutBytes) {
      const more = document.createElement('span')
      more.className = 'dim'
      more.textContent = ` ${texts.log.more(bytesText(row.cutBytes))}`
      text.append(more)
    }
    if (row.fields) {
      const fields = document.createElement('span')
      fields.className = 'log-fields'
      appendMarked(fields, `${row.text ? '  ' : ''}${row.fields}`, search)
      text.append(fields)
    }
    element.append(text)
    return element
  }

  private render() {
    const { view } = this.rows
    const total = this.rows.height
    this.space.style.height = `${total}px`
    if (!view.length) {
      for (const element of this.shown.values()) element.remove()
      this.shown.clear()
      return
    }
    const { clientHeight } = this.element
    const from = this.following ? Math.max(0, total - clientHeight) : this.element.scrollTop
    const beyond = this.following ? this.beyond : BEYOND
    const first = Math.max(0, this.rows.at(from) - beyond)
    const last = Math.min(view.length - 1, this.rows.at(from + clientHeight) + beyond)
    const wanted = new Set<number>()
    for (let index = first; index <= last; index += 1) wanted.add(view[index]!.number)
    for (const [number, element] of this.shown) {
      if (wanted.has(number)) continue
      element.remove()
      this.shown.delete(number)
    }
    let before: Element | null = this.window.firstElementChild
    const odd: number[] = []
    for (let index = first; index <= last; index += 1) {
      const row = view[index]!
      let element = this.shown.get(row.number)
      if (!element) {
        element = this.make(row)
        this.shown.set(row.number, element)
        if (row.odd) odd.push(index)
      }
      if (element === before) before = before.nextElementSibling
      else this.window.insertBefore(element, before)
    }
    this.window.style.transform = `translateY(${view[first]!.top - this.rows.base}px)`
    if (odd.length) {
      const heights = odd.map((index) => this.shown.get(view[index]!.number)!.offsetHeight)
      let above = 0
      odd.forEach((index, place) => {
        const change = this.rows.correct(index, heights[place]!)
        if (view[index]!.top - this.rows.base < this.element.scrollTop) above += change
      })
      this.space.style.height = `${this.rows.height}px`
      this.window.style.transform = `translateY(${view[first]!.top - this.rows.base}px)`
      if (above && !this.following) this.element.scrollTop += above
    }
  }
}
