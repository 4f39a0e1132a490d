// The address. Everything that a person chose is in it, so that a pasted link shows the same.
import { computed, signal } from '@preact/signals'

export type Place =
  | { view: 'hosts' }
  | { view: 'host'; host: string }
  | { view: 'container'; host: string; container: string }
  | { view: 'logs' }
  | { view: 'missing' }

export interface Route {
  place: Place
  params: URLSearchParams
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part)
  } catch {
    return part
  }
}

export function parse(path: string, search: string): Route {
  const parts = path.split('/').filter(Boolean).map(decoded)
  const params = new URLSearchParams(search)
  const [first, host, third, container] = parts
  let place: Place = { view: 'missing' }
  if (parts.length === 0) place = { view: 'hosts' }
  else if (first === 'logs' && parts.length === 1) place = { view: 'logs' }
  else if (first === 'hosts' && host && parts.length === 2) place = { view: 'host', host }
  else if (first === 'hosts' && host && third === 'containers' && container && parts.length === 4)
    place = { view: 'container', host, container }
  return { place, params }
}

export const route = signal<Route>(parse(location.pathname, location.search))
export const params = computed(() => route.value.params)

const read = () => {
  route.value = parse(location.pathname, location.search)
}

// The colon is legal in a path and keeps addresses readable.
const encoded = (part: string) => encodeURIComponent(part).replaceAll('%3A', ':')

/** The parameters that a link keeps: the range belongs to all views. */
function kept(): URLSearchParams {
  const from = route.value.params
  const keep = new URLSearchParams()
  for (const name of ['range', 'from', 'to']) {
    const value = from.get(name)
    if (value) keep.set(name, value)
  }
  return keep
}

function address(path: string, search: URLSearchParams): string {
  const text = search.toString().replaceAll('%3A', ':').replaceAll('%2F', '/').replaceAll('%2C', ',')
  return text ? `${path}?${text}` : path
}

export const toHosts = () => address('/', kept())
export const toHost = (host: string) => address(`/hosts/${encoded(host)}`, kept())
export const toContainer = (host: string, container: string) =>
  address(`/hosts/${encoded(host)}/containers/${encoded(container)}`, kept())

export function toLogs(of: string[]): string {
  const search = kept()
  for (const name of of) search.append('of', name)
  return address('/logs', search)
}

export function go(to: string) {
  history.pushState(null, '', to)
  read()
  scrollTo(0, 0)
}

/** Changes parameters of this address. A change by typing replaces the entry of the history, a choice adds one. */
export function setParams(changes: Record<string, string | null>, add = false) {
  const search = new URLSearchParams(location.search)
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === '') search.delete(name)
    else search.set(name, value)
  }
  const to = address(location.pathname, search)
  if (to === location.pathname + location.search) return
  if (add) history.pushState(null, '', to)
  else history.replaceState(null, '', to)
  read()
}

export function listenToAddress() {
  addEventListener('popstate', read)
  document.addEventListener('click', (event) => {
    if (event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return
    const link = (event.target as Element | null)?.closest?.('a[href]') as HTMLAnchorElement | null
    if (!link || link.target || link.hasAttribute('download') || link.origin !== location.origin) return
    if (link.pathname.startsWith('/api/') || link.getAttribute('href')!.startsWith('#')) return
    event.preventDefault()
    go(link.pathname + link.search)
  })
}

// The range of the charts.

export const RANGES: [string, number][] = [
  ['5m', 300_000], ['15m', 900_000], ['1h', 3_600_000], ['6h', 21_600_000],
  ['24h', 86_400_000], ['7d', 604_800_000], ['30d', 2_592_000_000], ['1y', 31_536_000_000],
]

export interface Range {
  /** The name of a range that ends now, or null for one with fixed ends. */
  name: string | null
  span: number
  from: number
  to: number
}

export const range = computed<Range>(() => {
  const search = params.value
  const from = Number(search.get('from'))
  const to = Number(search.get('to'))
  if (from > 0 && to > from) return { name: null, span: to - from, from, to }
  const found = RANGES.find(([name]) => name === search.get('range')) ?? RANGES[2]!
  return { name: found[0], span: found[1], from: 0, to: 0 }
})

/** The moment whose figures are shown, or null for the newest. */
export const moment = computed<number | null>(() => Number(params.value.get('at')) || null)
