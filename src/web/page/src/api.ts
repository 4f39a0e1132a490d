// Requests to the server, and its streams.
import { session, sessionEnded } from './session'
import { texts } from './texts'

export const API = '/api/v1'

export class ApiError extends Error {
  constructor(public status: number, message: string, public retryAfter: number | null = null) {
    super(message)
  }
}

async function failure(answer: Response): Promise<ApiError> {
  let why: string = texts.state.failed
  try {
    const body = await answer.json()
    if (typeof body?.error === 'string') why = body.error
  } catch {
    // The text above is all that can be said.
  }
  const wait = Number(answer.headers.get('Retry-After'))
  return new ApiError(answer.status, why, wait > 0 ? wait : null)
}

export async function request(path: string, options: RequestInit = {}): Promise<Response> {
  let answer: Response
  try {
    answer = await fetch(API + path, { credentials: 'same-origin', ...options })
  } catch (error) {
    if ((error as Error).name === 'AbortError') throw error
    throw new ApiError(0, texts.state.noAnswer)
  }
  if (answer.ok) return answer
  const error = await failure(answer)
  if (answer.status === 401 && path !== '/login') sessionEnded()
  throw error
}

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return (await request(path, signal ? { signal } : {})).json()
}

export async function post(path: string, body?: unknown): Promise<void> {
  await request(path, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(body ?? {}),
  })
}

export function query(values: Record<string, string | number | null | undefined>): string {
  const search = new URLSearchParams()
  for (const [name, value] of Object.entries(values)) if (value !== null && value !== undefined) search.set(name, String(value))
  const text = search.toString()
  return text ? `?${text}` : ''
}

export interface StreamHandlers {
  event: (name: string, data: unknown) => void
  /** Called with true after the stream is open, with false after it was cut. */
  open?: (open: boolean) => void
  /** Called for an answer that trying again does not change, such as 404. */
  refused?: (error: ApiError) => void
}

// A stream without a byte for this long is taken as cut. The server sends a comment more often than this.
const SILENCE_MS = 60_000
const LONGEST_WAIT_MS = 10_000

/**
 * Follows a stream of server-sent events and resumes it after a cut, with the header Last-Event-ID.
 *
 * This is not the browser's EventSource, because that one does not show the status of an answer: the end of a session would look
 * like a lost connection.
 */
export function follow(path: string, handlers: StreamHandlers): () => void {
  let last = ''
  let wait = 500
  let stopped = false
  let current = new AbortController()

  const hold = (ms: number) => new Promise<void>((done) => {
    const timer = setTimeout(done, ms)
    current.signal.addEventListener('abort', () => {
      clearTimeout(timer)
      done()
    })
  })

  async function once() {
    const control = current
    let watchdog = setTimeout(() => control.abort(), SILENCE_MS)
    try {
      const headers: Record<string, string> = { Accept: 'text/event-stream' }
      if (last) headers['Last-Event-ID'] = last
      const answer = await request(path, { headers, signal: control.signal, cache: 'no-store' })
      handlers.open?.(true)
      wait = 500
      const reader = answer.body!.pipeThrough(new TextDecoderStream()).getReader()
      let rest = ''
      let name = ''
      let data: string[] = []
      for (;;) {
        const { done, value } = await reader.read()
        if (done) return
        clearTimeout(watchdog)
        watchdog = setTimeout(() => control.abort(), SILENCE_MS)
        const lines = (rest + value).split('\n')
        rest = lines.pop()!
        for (let line of lines) {
          if (line.endsWith('\r')) line = line.slice(0, -1)
          if (line === '') {
            if (data.length) handlers.event(name || 'message', JSON.parse(data.join('\n')))
            name = ''
            data = []
            continue
          }
          const colon = line.indexOf(':')
          if (colon === 0) continue
          const field = colon < 0 ? line : line.slice(0, colon)
          const text = colon < 0 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1)
          if (field === 'event') name = text
          else if (field === 'data') data.push(text)
          else if (field === 'id') last = text
        }
      }
    } finally {
      clearTimeout(watchdog)
    }
  }

  async function run() {
    while (!stopped) {
      current = new AbortController()
      try {
        await once()
      } catch (error) {
        if (stopped) return
        if (error instanceof ApiError) {
          if (error.status === 401) {
            await loggedIn()
            continue
          }
          if (error.status >= 400 && error.status < 500 && error.status !== 429) {
            handlers.refused?.(error)
            return
          }
          if (error.retryAfter) wait = Math.max(wait, error.retryAfter * 1000)
        }
      }
      if (stopped) return
      handlers.open?.(false)
      // A random part, so that not all pages come back at the same moment.
      current = new AbortController()
      await hold(wait * (0.5 + Math.random() * 0.5))
      wait = Math.min(wait * 2, LONGEST_WAIT_MS)
    }
  }

  // A laptop that wakes up tries at once.
  const awake = () => {
    wait = 500
  }
  addEventListener('online', awake)
  void run()
  return () => {
    stopped = true
    removeEventListener('online', awake)
    current.abort()
  }
}

/** Resolves after a person has logged in. */
function loggedIn(): Promise<void> {
  return new Promise((done) => {
    const stop = session.subscribe((value) => {
      if (value?.user) {
        queueMicrotask(() => stop())
        done()
      }
    })
  })
}
