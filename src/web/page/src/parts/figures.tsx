// Figures in tables: a number with a dimmed unit, a thin bar, a small line.
import type { Parts } from '../format'

export function Fig({ parts, title }: { parts: Parts; title?: string }) {
  return (
    <span class="fig" title={title}>
      {parts[0]}
      {parts[1] && <span class="unit"> {parts[1]}</span>}
    </span>
  )
}

/** The level of a share of something that can be full: 75 % warns and 90 % is critical, as in the terminal view. */
export const fullness = (percent: number | null | undefined) =>
  percent === null || percent === undefined ? '' : percent >= 90 ? 'critical' : percent >= 75 ? 'warning' : ''

export function Bar({ percent, level = '' }: { percent: number | null | undefined; level?: string }) {
  const width = Math.min(100, Math.max(0, percent ?? 0))
  return (
    <span class={`bar ${level}`} aria-hidden="true">
      <span style={{ width: `${width}%` }} />
    </span>
  )
}

const WIDTH = 88
const HEIGHT = 16
const POINTS = 60

export function Spark({ values, most }: { values: (number | null)[] | null; most: number }) {
  const shown = (values ?? []).slice(-POINTS)
  let path = ''
  let pen = false
  shown.forEach((value, index) => {
    if (value === null) {
      pen = false
      return
    }
    const x = WIDTH - 1 - ((shown.length - 1 - index) * (WIDTH - 2)) / (POINTS - 1)
    const y = HEIGHT - 1 - (Math.min(most, Math.max(0, value)) / most) * (HEIGHT - 2)
    path += `${pen ? 'L' : 'M'}${x.toFixed(1)} ${y.toFixed(1)}`
    if (!pen) path += 'h.1'
    pen = true
  })
  return (
    <svg class="spark" width={WIDTH} height={HEIGHT} viewBox={`0 0 ${WIDTH} ${HEIGHT}`} aria-hidden="true">
      <path d={path} />
    </svg>
  )
}

/** A word about a state with its shape, so that colour is never alone. */
export function Mark({ level }: { level: string }) {
  if (level === 'critical') return <span class="mark critical" aria-hidden="true">●</span>
  if (level === 'warning') return <span class="mark warning" aria-hidden="true">▲</span>
  return null
}
