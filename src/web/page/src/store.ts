// What the page knows of the server. The views read these signals.
import { computed, effect, signal } from '@preact/signals'
import { follow, get, ApiError } from './api'
import { mayLook, session } from './session'
import { route } from './route'
import { plain } from './format'
import { texts } from './texts'
import type { HostAnswer, HostsAnswer, Session } from './types'

export const hosts = signal<HostsAnswer | null>(null)
export const host = signal<HostAnswer | null>(null)
/** Why the host of this address cannot be shown, or null. */
export const hostError = signal<string | null>(null)
/** When the stream was cut, or null while it is open. */
export const lostAt = signal<number | null>(null)
/** What screen readers announce: new problems. */
export const announcement = signal('')
/** Why nothing can be shown at all. */
export const failed = signal<string | null>(null)

/** The server's clock minus the browser's. */
let offset = 0
export const now = signal(Date.now())
setInterval(() => {
  now.value = Date.now() + offset
}, 1000)

export const hostNames = computed(() => new Map((hosts.value?.hosts ?? []).map((row) => [row.id, plain(row.name)])))

export async function readSession() {
  try {
    session.value = await get<Session>('/session')
    failed.value = null
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) session.value = { user: null, login: true, version: '', zone: '' }
    else failed.value = (error as Error).message
  }
}

/** The host that the server does not know. */
const refused = signal<string | null>(null)

let known: Set<string> | null = null

function takeHosts(answer: HostsAnswer) {
  offset = answer.now_at - Date.now()
  now.value = answer.now_at
  hosts.value = answer
  // A host of a fleet can appear later.
  if (answer.hosts.some((row) => row.id === refused.peek())) refused.value = null
  const ids = new Set(answer.problems.map((problem) => problem.id))
  if (known) {
    const fresh = answer.problems.filter((problem) => !known!.has(problem.id))
    if (fresh.length) {
      announcement.value = fresh
        .slice(0, 3)
        .map((problem) => texts.problems.appeared(hostNames.peek().get(problem.host) ?? problem.host, plain(problem.text)))
        .join('. ')
    }
  }
  known = ids
}

/** The host that the stream must send: that of the address, or the only one. */
const wanted = computed(() => {
  const place = route.value.place
  if (place.view === 'host' || place.view === 'container') return place.host === refused.value ? null : place.host
  const all = hosts.value?.hosts
  return place.view === 'hosts' && all?.length === 1 ? all[0]!.id : null
})

const visible = signal(document.visibilityState === 'visible')

// A page that nobody sees for this long asks for nothing.
const HIDDEN_MS = 60_000

export function listenToServer() {
  let timer = 0
  document.addEventListener('visibilitychange', () => {
    clearTimeout(timer)
    if (document.visibilityState === 'visible') visible.value = true
    else timer = setTimeout(() => (visible.value = false), HIDDEN_MS) as unknown as number
  })
  effect(() => {
    const { place } = route.value
    if (!('host' in place) || place.host !== refused.peek()) refused.value = null
  })
  effect(() => {
    const id = wanted.value
    if (!mayLook.value || !visible.value) return undefined
    if (host.peek()?.row.id !== id) host.value = null
    if (id !== null) hostError.value = null
    return follow(`/stream${id ? `?host=${encodeURIComponent(id)}` : ''}`, {
      event: (name, data) => {
        if (name === 'hosts') takeHosts(data as HostsAnswer)
        else if (name === 'host') {
          const answer = data as HostAnswer
          if (answer.row.id === wanted.peek()) host.value = answer
        }
      },
      open: (open) => {
        if (open) lostAt.value = null
        else lostAt.value ??= Date.now()
      },
      refused: (error) => {
        hostError.value = error.message
        // The stream without this host still works.
        refused.value = id
      },
    })
  })
}

export const isVisible = visible

const narrow = matchMedia('(max-width: 640px)')
export const isPhone = signal(narrow.matches)
narrow.addEventListener('change', () => (isPhone.value = narrow.matches))
