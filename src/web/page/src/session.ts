// The session of the person who looks at the page.
import { computed, signal } from '@preact/signals'
import type { Session } from './types'

export const session = signal<Session | null>(null)
/** True after the server refused a request of a session that had worked. */
export const expired = signal(false)
export const mayLook = computed(() => Boolean(session.value?.user))

export function sessionEnded() {
  const before = session.peek()
  if (!before?.user) return
  expired.value = true
  session.value = { ...before, user: null, login: true }
}
