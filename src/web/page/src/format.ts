// Figures and times as text. `plain` makes text of others harmless to read; it is never parsed as HTML anywhere.

const DASH = '–'

type Figure = number | null | undefined

const known = (value: Figure): value is number => typeof value === 'number' && Number.isFinite(value)

/** A figure and its unit, so that the unit can be dimmed. */
export type Parts = [figure: string, unit: string]

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']

export function bytes(value: Figure): Parts {
  if (!known(value)) return [DASH, '']
  let unit = 0
  let rest = Math.max(0, value)
  while (rest >= 1023.5 && unit < UNITS.length - 1) {
    rest /= 1024
    unit += 1
  }
  // GiB always have a decimal; smaller units have one below 10.
  const decimals = unit >= 3 || (unit > 0 && rest < 9.95) ? 1 : 0
  return [rest.toFixed(decimals), UNITS[unit]!]
}

export const bytesText = (value: Figure) => bytes(value).join(' ').trim()

export function rate(value: Figure): Parts {
  const [figure, unit] = bytes(value)
  return [figure, unit && `${unit}/s`]
}

export const rateText = (value: Figure) => rate(value).join(' ').trim()

export function percent(value: Figure): Parts {
  if (!known(value)) return [DASH, '']
  return [value < 9.95 ? value.toFixed(1) : value.toFixed(0), '%']
}

export const percentText = (value: Figure) => percent(value).join(' ').trim()

export const decimal = (value: Figure, digits = 2) => (known(value) ? value.toFixed(digits) : DASH)

export const integer = (value: Figure) => (known(value) ? value.toLocaleString('en').replaceAll(',', '\u202f') : DASH)

/** A duration with one unit: `12 s`, `4 min`, `3 h`, `12 d`. */
export function span(ms: Figure): string {
  if (!known(ms)) return DASH
  const seconds = Math.max(0, Math.round(ms / 1000))
  if (seconds < 100) return `${seconds} s`
  const minutes = Math.round(seconds / 60)
  if (minutes < 100) return `${minutes} min`
  const hours = Math.round(seconds / 3600)
  if (hours < 48) return `${hours} h`
  const days = Math.round(seconds / 86400)
  return days < 730 ? `${days} d` : `${(days / 365).toFixed(1)} y`
}

const two = (value: number) => String(value).padStart(2, '0')

/** The local time of day, with the date if the day is not today. */
export function time(at: number, seconds = true, today = Date.now()): string {
  const moment = new Date(at)
  const clock = `${two(moment.getHours())}:${two(moment.getMinutes())}${seconds ? `:${two(moment.getSeconds())}` : ''}`
  return new Date(today).toDateString() === moment.toDateString() ? clock : `${date(at)} ${clock}`
}

export function date(at: number): string {
  const moment = new Date(at)
  return `${moment.getFullYear()}-${two(moment.getMonth() + 1)}-${two(moment.getDate())}`
}

/** The time of day with milliseconds, for log lines. */
export function stamp(at: number): string {
  const moment = new Date(at)
  return `${two(moment.getHours())}:${two(moment.getMinutes())}:${two(moment.getSeconds())}.${String(moment.getMilliseconds()).padStart(3, '0')}`
}

export function iso(at: number): string {
  return Number.isFinite(at) && Math.abs(at) < 8.64e15 ? new Date(at).toISOString() : ''
}

/** Milliseconds of a time of the snapshot, or null. */
export function parsed(text: string | null | undefined): number | null {
  const at = text ? Date.parse(text) : NaN
  return Number.isFinite(at) ? at : null
}

// Sequences of terminals (colours, cursor, titles, links).
const SEQUENCES = /\u001b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[@-Z\\-_]|[ -/]+[0-~])/g
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]/
const ALL_CONTROLS = new RegExp(CONTROLS.source, 'g')
const UNUSUAL = /[\u001b\r]/

/** Removes terminal sequences, and makes characters visible that hide or reorder text. */
export function plain(text: string): string {
  if (!CONTROLS.test(text) && !UNUSUAL.test(text)) return text
  return text
    .replace(SEQUENCES, '')
    .replace(/\r$/, '')
    .replace(ALL_CONTROLS, (character) => {
      const code = character.charCodeAt(0)
      if (code < 0x20) return String.fromCharCode(0x2400 + code)
      if (code === 0x7f) return '\u2421'
      return `[U+${code.toString(16).toUpperCase().padStart(4, '0')}]`
    })
}

/** A container's name without the slash: as in addresses and series. What is shown goes through `plain` also. */
export const bare = (name: string) => (name.startsWith('/') ? name.slice(1) : name)
