// The keys. Rows that can be chosen have a link with the attribute data-row; j and k move the focus between these links.
import { signal } from '@preact/signals'
import { go, range, RANGES, route, setParams, toHost, toHosts, toLogs } from './route'
import { nextTheme } from './theme'

export const helpOpen = signal(false)

/** A log on the page takes j, k, g, n and N. Returns true if it used the key. */
export type LogKeys = (key: string) => boolean
export const logKeys: { current: LogKeys | null } = { current: null }

function move(by: number): void {
  const rows = [...document.querySelectorAll<HTMLAnchorElement>('a[data-row]')].filter((row) => row.offsetParent)
  if (!rows.length) return
  const at = rows.indexOf(document.activeElement as HTMLAnchorElement)
  const next = at < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(rows.length - 1, Math.max(0, at + by))
  rows[next]!.focus()
  rows[next]!.scrollIntoView({ block: 'nearest' })
}

function up() {
  const { place } = route.value
  if (place.view === 'container') go(toHost(place.host))
  else if (place.view !== 'hosts') go(toHosts())
}

function toLog() {
  const row = document.activeElement?.closest<HTMLElement>('[data-log]')
  const { place } = route.value
  if (row) go(row.dataset.log!)
  else if (place.view === 'host') go(toLogs([place.host]))
  else if (place.view === 'container') document.querySelector<HTMLElement>('.log-list')?.focus()
  else if (place.view === 'hosts') go(toLogs([]))
}

function otherRange(by: number) {
  const at = RANGES.findIndex(([name]) => name === range.value.name)
  const next = RANGES[Math.min(RANGES.length - 1, Math.max(0, (at < 0 ? 2 : at) + by))]!
  setParams({ range: next[0], from: null, to: null }, true)
}

export function listenToKeys() {
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return
    const target = event.target as HTMLElement
    const typing = target.matches('input, textarea, select')
    if (event.key === 'Escape') {
      if (helpOpen.value) helpOpen.value = false
      else if (typing) target.blur()
      else if (logKeys.current?.('Escape')) return
      else if (route.value.params.get('at')) setParams({ at: null }, true)
      return
    }
    if (typing || helpOpen.value) return
    const used = () => event.preventDefault()
    if (['j', 'k', 'g', 'n', 'N'].includes(event.key) && !target.matches('a[data-row]') && logKeys.current?.(event.key)) return used()
    switch (event.key) {
      case '/': {
        const field = document.querySelector<HTMLInputElement>('input[data-find]')
        field?.focus()
        field?.select()
        return used()
      }
      case 'j': move(1); return used()
      case 'k': move(-1); return used()
      case 'u': up(); return used()
      case 'l': toLog(); return used()
      case 't': nextTheme(); return used()
      case '[': otherRange(-1); return used()
      case ']': otherRange(1); return used()
      case '?': helpOpen.value = true; return used()
    }
  })
}
