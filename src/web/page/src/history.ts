// The figures of the past for the charts of one view: one request for all series, and later only what is new.
import { useEffect, useRef, useState } from 'preact/hooks'
import { effect } from '@preact/signals'
import { get, query } from './api'
import { host as hostSignal, isVisible, now } from './store'
import { mayLook } from './session'
import { plain } from './format'
import { range } from './route'
import { merged, type Shown } from './merge'
import type { History, HostEvent } from './types'

// With steps of up to this length only the newest points are asked for; a longer step is an average that can still change.
const FINE_STEP_MS = 15_000
const SHORTEST_PAUSE_MS = 4_000
const POINTS = 600

function whole(answer: History, from: number, to: number): Shown {
  return { from, to, step: answer.step_ms, times: answer.times, series: answer.series }
}

export function useHistory(host: string, names: string[]): Shown | null {
  const [shown, setShown] = useState<Shown | null>(null)
  const list = names.join(',')
  const { name, span, from: fixedFrom, to: fixedTo } = range.value
  const held = useRef<Shown | null>(null)
  useEffect(() => {
    const control = new AbortController()
    let busy = false
    let asked = 0
    held.current = null
    const ask = (from: number, to: number, points: number) =>
      get<History>(`/hosts/${encodeURIComponent(host)}/history${query({ series: list, from: Math.floor(from), to: Math.ceil(to), points })}`, control.signal)
    async function load() {
      const at = now.peek()
      if (busy || at - asked < SHORTEST_PAUSE_MS) return
      const before = held.current
      if (before && !name) return
      const fine = before !== null && before.step <= FINE_STEP_MS
      if (before && !fine && at - asked < before.step) return
      busy = true
      asked = at
      try {
        const to = name ? at : fixedTo
        const from = name ? at - span : fixedFrom
        const lastTime = before?.times.at(-1)
        const next =
          before && fine && lastTime !== undefined && lastTime > from
            ? merged(before, await ask(lastTime - before.step, to, POINTS), from, to)
            : whole(await ask(from, to, POINTS), from, to)
        held.current = next
        setShown(next)
      } catch {
        // What is known stays; the next snapshot asks again.
      }
      busy = false
    }
    const stop = effect(() => {
      // Each new snapshot is a reason to ask. Without one the axis still moves on, so that an outage shows as a gap.
      void hostSignal.value?.row.newest_at
      void Math.floor(now.value / 5000)
      if (mayLook.value && isVisible.value) void load()
    })
    return () => {
      stop()
      control.abort()
    }
  }, [host, list, name, span, fixedFrom, fixedTo])
  return shown
}

const EVENTS_PAUSE_MS = 10_000

export function useEvents(host: string, container: string | null): HostEvent[] {
  const [events, setEvents] = useState<HostEvent[]>([])
  const { name, span, from: fixedFrom, to: fixedTo } = range.value
  useEffect(() => {
    const control = new AbortController()
    let asked = 0
    const load = async () => {
      const at = now.peek()
      if (at - asked < EVENTS_PAUSE_MS || (asked && !name)) return
      asked = at
      try {
        const answer = await get<{ events: HostEvent[] }>(
          `/hosts/${encodeURIComponent(host)}/events${query({ from: Math.floor(name ? at - span : fixedFrom), to: Math.ceil(name ? at : fixedTo), container })}`,
          control.signal,
        )
        setEvents(answer.events.map((event) => ({ ...event, text: plain(event.text) })))
      } catch {
        // As above.
      }
    }
    const stop = effect(() => {
      void Math.floor(now.value / 5000)
      if (mayLook.value && isVisible.value) void load()
    })
    return () => {
      stop()
      control.abort()
    }
  }, [host, container, name, span, fixedFrom, fixedTo])
  return events
}
