// What a log line shows in the list, and the search in it.
import { plain } from '../format'
import type { LogLine } from '../types'

/** A row shows this much of a line. The chosen line shows all of it. */
const SHOWN = 2000
const FIELDS_SHOWN = 160

export interface Row {
  /** Grows with each row; never used twice. */
  number: number
  at: number
  /** The line, or null for a note such as that of dropped lines. */
  line: LogLine | null
  host: string
  /** Host and container, as in the address. */
  source: string
  text: string
  /** The fields of a JSON line, shortened. */
  fields: string
  cutBytes: number
  /** Whether the width of the text is not the number of its characters. */
  odd: boolean
  hit: boolean
  top: number
  height: number
}

const MESSAGES = ['msg', 'message', 'event', 'error', 'err', 'log', 'body']
const LEFT_OUT = new Set(['time', 'ts', 'timestamp', '@timestamp', 't', 'level', 'lvl', 'severity', 'log.level'])

/** The object of a JSON line, or null. */
export function jsonOf(text: string): Record<string, unknown> | null {
  const trimmed = text.trim()
  if (!trimmed.startsWith('{') || !trimmed.endsWith('}')) return null
  try {
    const value = JSON.parse(trimmed)
    return value && typeof value === 'object' && !Array.isArray(value) ? value : null
  } catch {
    return null
  }
}

function fieldsOf(value: Record<string, unknown>, without: string | undefined): string {
  let text = ''
  for (const [name, field] of Object.entries(value)) {
    if (name === without || LEFT_OUT.has(name)) continue
    const shown = typeof field === 'string' ? field : JSON.stringify(field)
    text += `${text ? ' ' : ''}${name}=${shown}`
    if (text.length > FIELDS_SHOWN) return `${text.slice(0, FIELDS_SHOWN)}…`
  }
  return text
}

// In these characters each has the width of one column of a monospaced font.
const EVEN = /^[ -~]*$/

let numbers = 0

export function rowOf(line: LogLine, host: string): Row {
  const json = jsonOf(line.text)
  const name = json ? MESSAGES.find((message) => typeof json[message] === 'string') : undefined
  const whole = plain(name ? (json![name] as string) : json ? '' : line.text.replace(/\n$/, ''))
  const text = whole.length > SHOWN ? whole.slice(0, SHOWN) : whole
  const fields = json ? plain(fieldsOf(json, name)) : ''
  return {
    number: ++numbers,
    at: line.at,
    line,
    host,
    source: `${host}/${line.container}`,
    text,
    fields,
    cutBytes: whole.length - text.length,
    odd: !EVEN.test(text) || !EVEN.test(fields),
    hit: false,
    top: 0,
    height: 0,
  }
}

export function noteOf(text: string, at: number, host: string): Row {
  return { number: ++numbers, at, line: null, host, source: '', text, fields: '', cutBytes: 0, odd: true, hit: false, top: 0, height: 0 }
}

/** The expression of a search: text, or a regular expression between slashes. Null without a search, undefined if it is wrong. */
export function searchOf(search: string): RegExp | null | undefined {
  if (!search) return null
  const expression = /^\/(.+)\/$/.exec(search)
  try {
    return new RegExp(expression ? expression[1]! : search.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'), 'gi')
  } catch {
    return undefined
  }
}

export function matches(row: Row, search: RegExp): boolean {
  search.lastIndex = 0
  if (search.test(row.text)) return true
  search.lastIndex = 0
  return row.fields !== '' && search.test(row.fields)
}

// One row marks at most this many hits.
const MARKS = 50

/** Appends a text to an element, with the hits in `mark` elements. Only text nodes are made. */
export function appendMarked(element: HTMLElement, text: string, search: RegExp | null) {
  if (!search) {
    element.append(text)
    return
  }
  let from = 0
  let marks = 0
  search.lastIndex = 0
  for (let found = search.exec(text); found && marks < MARKS; found = search.exec(text)) {
    if (found[0] === '') {
      search.lastIndex += 1
      continue
    }
    if (found.index > from) element.append(text.slice(from, found.index))
    const mark = document.createElement('mark')
    mark.textContent = found[0]
    element.append(mark)
    from = found.index + found[0].length
    marks += 1
  }
  if (from < text.length) element.append(text.slice(from))
}
