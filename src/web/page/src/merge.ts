// The figures of a chart, and how newer ones are added.
import type { History } from './types'

export interface Shown {
  from: number
  to: number
  step: number
  times: number[]
  series: Record<string, (number | null)[]>
}

/** Adds newer points, replaces those of the same time, and forgets those before `from`. A pause becomes a gap. */
export function merged(before: Shown, tail: History, from: number, to: number): Shown {
  const start = tail.times[0] ?? Infinity
  let keep = before.times.length
  while (keep > 0 && before.times[keep - 1]! >= start) keep -= 1
  let first = 0
  while (first < keep && before.times[first]! < from) first += 1
  const last = before.times[keep - 1]
  const gap = last !== undefined && start - last > Math.max(before.step, tail.step_ms) * 2.5
  const names = new Set([...Object.keys(before.series), ...Object.keys(tail.series)])
  const series: Shown['series'] = {}
  const nothing = (length: number) => new Array<number | null>(length).fill(null)
  for (const name of names) {
    const old = before.series[name]?.slice(first, keep) ?? nothing(keep - first)
    if (gap) old.push(null)
    series[name] = old.concat(tail.series[name] ?? nothing(tail.times.length))
  }
  const times = before.times.slice(first, keep)
  if (gap) times.push(last! + before.step)
  return { from, to, step: before.step, times: times.concat(tail.times), series }
}
