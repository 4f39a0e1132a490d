// One chart. All charts of a page share the time axis and the cursor. Names and values stand at the ends of the lines.
import uPlot from 'uplot'
import { useEffect, useLayoutEffect, useRef } from 'preact/hooks'
import { signal } from '@preact/signals'
import type { Shown } from '../merge'
import { bytes, bytesText, percentText, rateText, stamp, time } from '../format'
import { moment, range, setParams } from '../route'
import { colour, palette } from '../theme'
import { roundUp } from '../scale'
import { texts } from '../texts'
import type { HostEvent } from '../types'

export interface Line {
  series: string
  name: string
  /** The number of the colour, 1 to 6. */
  colour: number
  fill?: boolean
}

interface Props {
  title: string
  unit: 'percent' | 'bytes' | 'rate' | 'celsius'
  lines: Line[]
  data: Shown | null
  /** A line for what can be used at most. */
  limit?: { value: number; name: string } | null | undefined
  /** The end of the axis, for shares of a whole. */
  most?: number
  events: HostEvent[]
}

/** The time under the cursor, for the line above the charts. */
export const cursorAt = signal<number | null>(null)

const HEIGHT = 132
const LOW_HEIGHT = 108
const LABELS = 128
const AXIS = 54
const NARROW = 400
const LABEL_HEIGHT = 14

const formats = {
  percent: percentText,
  bytes: bytesText,
  rate: rateText,
  celsius: (value: number | null | undefined) => (value === null || value === undefined ? '–' : `${value.toFixed(0)} °C`),
}

const heightOf = (width: number) => (width < NARROW ? LOW_HEIGHT : HEIGHT)

function axisText(unit: Props['unit'], value: number): string {
  if (unit === 'percent') return `${value} %`
  if (unit === 'celsius') return `${value} °`
  if (value === 0) return '0'
  const [figure, name] = bytes(value)
  return `${figure.replace(/\.0$/, '')} ${name}`
}

/** Only points without a neighbour are drawn as points: a line cannot show them. */
function lonely(plot: uPlot, series: number, _show: boolean): number[] | null {
  const values = plot.data[series]!
  const found: number[] = []
  for (let index = 0; index < values.length; index += 1) {
    if (values[index] != null && values[index - 1] == null && values[index + 1] == null) found.push(index)
  }
  return found
}

export function Chart(props: Props) {
  const box = useRef<HTMLDivElement>(null)
  const ends = useRef<HTMLDivElement>(null)
  const plot = useRef<uPlot | null>(null)
  const latest = useRef(props)
  latest.current = props
  const at = moment.value
  const pinned = useRef(at)
  pinned.current = at
  // A series that the host does not have, such as swap, is left out.
  const present = props.data === null ? [] : props.lines.filter((line) => props.data!.series[line.series]?.some((value) => value !== null))
  const lines = present.length ? present : props.lines
  const key = lines.map((line) => line.series).join(',')

  // Writes the values of the moment, or the newest, and puts the names where the lines end.
  const label = (u: uPlot) => {
    const holder = ends.current
    if (!holder) return
    const { data, unit } = latest.current
    if (!data) return
    const hover = u.cursor.idx
    let index: number | null = hover ?? null
    if (index === null && pinned.current !== null) index = u.valToIdx(pinned.current)
    const narrow = u.width < NARROW
    const marks = [...holder.children] as HTMLElement[]
    const spots = marks.map((element, number) => {
      const values = u.data[number + 1] as (number | null)[]
      let last = values.length - 1
      while (last >= 0 && values[last] === null) last -= 1
      const end = values[last] ?? 0
      element.lastElementChild!.textContent = formats[unit](index === null ? values[last] : values[index])
      return { element, top: u.valToPos(end, 'y') }
    })
    holder.classList.toggle('row', narrow)
    if (narrow) return
    spots.sort((a, b) => a.top - b.top)
    const height = u.height - 26
    for (let number = 0; number < spots.length; number += 1) {
      const least = number ? spots[number - 1]!.top + LABEL_HEIGHT : LABEL_HEIGHT / 2
      spots[number]!.top = Math.max(least, spots[number]!.top)
    }
    for (let number = spots.length - 1; number >= 0; number -= 1) {
      const mostTop = number < spots.length - 1 ? spots[number + 1]!.top - LABEL_HEIGHT : height
      spots[number]!.top = Math.min(mostTop, spots[number]!.top)
      spots[number]!.element.style.transform = `translateY(${Math.round(spots[number]!.top - LABEL_HEIGHT / 2)}px)`
    }
  }

  useLayoutEffect(() => {
    const element = box.current!
    const { unit } = props
    const dim = colour('dim')
    const faint = colour('line')
    const font = '11px system-ui, sans-serif'
    const width = () => Math.max(160, element.clientWidth)
    let clickTimer = 0
    let downX = 0
    const options: uPlot.Options = {
      width: width(),
      height: heightOf(width()),
      ms: 1,
      padding: [6, (self) => (self.width < NARROW ? 8 : LABELS), 0, 0],
      legend: { show: false },
      cursor: {
        sync: { key: 'page', scales: ['x', null] },
        y: false,
        points: { size: 5 },
        drag: { x: true, y: false, setScale: false },
        bind: {
          dblclick: () => () => {
            clearTimeout(clickTimer)
            setParams({ from: null, to: null, at: null }, true)
            return null
          },
        },
      },
      scales: {
        x: { time: true, range: () => [latest.current.data?.from ?? 0, latest.current.data?.to ?? 1] },
        y: {
          range: (_u, _min, max) => {
            const { most, limit } = latest.current
            if (most) return [0, most]
            const top = Math.max(max ?? 0, 0)
            // The axis ends a little above a limit that the figures come near to; a limit far above would flatten them.
            if (limit && top <= limit.value && top > limit.value * 0.2) return [0, limit.value * 1.12]
            if (unit === 'percent' && top > 80 && top <= 100) return [0, 100]
            // Almost nothing must not look like much.
            const least = unit === 'percent' ? 2 : unit === 'celsius' ? 50 : 1024
            return [0, roundUp(Math.max(top * 1.05, least), unit === 'bytes' || unit === 'rate')]
          },
        },
      },
      axes: [
        {
          stroke: dim, font, size: 20, gap: 3, space: 48,
          grid: { show: false },
          ticks: { stroke: faint, size: 4 },
          values: (u, splits, _index, _space, step) => {
            const days = u.scales.x!.max! - u.scales.x!.min! > 36 * 3_600_000
            // Without figures there is no time axis yet.
            if (!latest.current.data) return splits.map(() => '')
            return splits.map((value) => {
              const whole = new Date(value)
              if (days) return step >= 86_400_000 ? `${whole.getDate()} ${whole.toLocaleString('en', { month: 'short' })}` : time(value, false).slice(-5)
              return step < 60_000 ? time(value).slice(-8) : time(value, false).slice(-5)
            })
          },
        },
        {
          stroke: dim, font, size: AXIS, gap: 4,
          grid: { stroke: faint, width: 1 },
          ticks: { show: false },
          splits: (_u, _index, _min, max) => {
            const { limit } = latest.current
            const end = limit && max === limit.value * 1.12 ? limit.value : max
            return [0, end / 2, end]
          },
          values: (_u, splits) => splits.map((value) => (latest.current.data ? axisText(unit, value) : '')),
        },
      ],
      series: [
        {},
        ...lines.map((line): uPlot.Series => ({
          label: line.name,
          stroke: colour(`series-${line.colour}`),
          width: 1.5,
          ...(line.fill ? { fill: `${colour(`series-${line.colour}`)}22` } : {}),
          points: { show: true, size: 4, filter: lonely as uPlot.Series.Points.Filter },
          spanGaps: false,
        })),
      ],
      hooks: {
        setCursor: [
          (u) => {
            label(u)
            const index = u.cursor.idx
            cursorAt.value = index == null ? null : (u.data[0][index] ?? null)
          },
        ],
        setSelect: [
          (u) => {
            if (u.select.width < 4) return
            const from = Math.round(u.posToVal(u.select.left, 'x'))
            const to = Math.round(u.posToVal(u.select.left + u.select.width, 'x'))
            u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false)
            if (to - from >= 1000) setParams({ from: String(from), to: String(to), at: null }, true)
          },
        ],
        draw: [
          (u) => {
            const { ctx } = u
            const { left, top, width: wide, height: high } = u.bbox
            const ratio = devicePixelRatio
            const { limit, events, data } = latest.current
            ctx.save()
            ctx.textAlign = 'left'
            ctx.textBaseline = 'alphabetic'
            ctx.beginPath()
            ctx.rect(left, 0, wide, top + high + 8 * ratio)
            ctx.clip()
            if (limit && limit.value <= u.scales.y!.max!) {
              const y = u.valToPos(limit.value, 'y', true)
              ctx.strokeStyle = dim
              ctx.lineWidth = ratio
              ctx.setLineDash([5 * ratio, 4 * ratio])
              ctx.beginPath()
              ctx.moveTo(left, y)
              ctx.lineTo(left + wide, y)
              ctx.stroke()
              ctx.setLineDash([])
              ctx.fillStyle = dim
              ctx.font = `${11 * ratio}px system-ui, sans-serif`
              const below = y < top + 14 * ratio
              ctx.fillText(limit.name, left + 4 * ratio, below ? y + 12 * ratio : y - 4 * ratio)
            }
            const floor = top + high
            for (const event of events) {
              if (!data || event.at < data.from || event.at > data.to) continue
              const x = u.valToPos(event.at, 'x', true)
              ctx.fillStyle = event.severity === 'info' ? dim : colour(event.severity)
              ctx.beginPath()
              ctx.moveTo(x, floor - 6 * ratio)
              ctx.lineTo(x - 3.5 * ratio, floor)
              ctx.lineTo(x + 3.5 * ratio, floor)
              ctx.fill()
            }
            if (pinned.current !== null) {
              const x = Math.round(u.valToPos(pinned.current, 'x', true))
              ctx.fillStyle = colour('accent')
              ctx.fillRect(x, top, ratio, high)
            }
            ctx.restore()
            label(u)
          },
        ],
      },
    }
    const columns = (): uPlot.AlignedData => {
      const { data } = latest.current
      return [data?.times ?? [], ...lines.map((line) => data?.series[line.series] ?? [])] as uPlot.AlignedData
    }
    const u = new uPlot(options, columns(), element)
    plot.current = u
    u.over.addEventListener('mousedown', (event) => {
      downX = event.clientX
    })
    u.over.addEventListener('click', (event) => {
      clearTimeout(clickTimer)
      if (Math.abs(event.clientX - downX) > 3) return
      const value = Math.round(u.posToVal(event.clientX - u.over.getBoundingClientRect().left, 'x'))
      // A double click zooms out; only a single click chooses a moment.
      clickTimer = setTimeout(() => setParams({ at: String(value) }, true), 250) as unknown as number
    })
    const observer = new ResizeObserver(() => {
      const wide = width()
      if (wide !== u.width) u.setSize({ width: wide, height: heightOf(wide) })
    })
    observer.observe(element)
    return () => {
      clearTimeout(clickTimer)
      observer.disconnect()
      u.destroy()
      plot.current = null
    }
  }, [key, palette.value, props.unit])

  useEffect(() => {
    const u = plot.current
    const { data } = props
    if (!u || !data) return
    u.batch(() => {
      u.setData([data.times, ...lines.map((line) => data.series[line.series] ?? [])] as uPlot.AlignedData, false)
      u.setScale('x', { min: data.from, max: data.to })
    })
  }, [props.data, key])

  useEffect(() => plot.current?.redraw(false), [at, props.events, props.limit?.value])

  const { data, title, unit } = props
  const values = (line: Line) => (data?.series[line.series] ?? []).filter((value) => value !== null) as number[]
  const empty = data !== null && lines.every((line) => !values(line).length)
  const first = data?.times[0]
  const young = data && first !== undefined && first - data.from > (data.to - data.from) * 0.1
  const summary = data
    ? texts.chart.summary(title, time(data.from), time(data.to), empty ? texts.chart.noData : lines
        .filter((line) => values(line).length)
        .map((line) => texts.chart.part(line.name, formats[unit](values(line).at(-1)), formats[unit](values(line).reduce((a, b) => Math.max(a, b), 0))))
        .join('; '))
    : title
  return (
    <figure class="chart">
      <figcaption>
        <b>{title}</b>
        {empty ? <span class="dim"> {texts.chart.noData}</span> : young ? <span class="dim"> {texts.chart.since(time(first!, false))}</span> : null}
      </figcaption>
      <div class="plot" role="img" aria-label={summary}>
        <div ref={box} class="canvas" aria-hidden="true" />
        <div ref={ends} class="ends" aria-hidden="true" hidden={empty}>
          {lines.map((line) => (
            <div key={line.series}>
              <i class={`swatch s${line.colour}`} />
              <span>{line.name}</span> <span class="value" />
            </div>
          ))}
        </div>
      </div>
    </figure>
  )
}

/** Says which moment the figures of the charts are from, and what happened then. */
export function Moment({ events, data }: { events: HostEvent[]; data: Shown | null }) {
  const at = cursorAt.value ?? moment.value
  if (at === null || !data) {
    return (
      <p class="moment">
        {range.value.name === null && <button type="button" class="link" onClick={() => setParams({ from: null, to: null, at: null }, true)}>{texts.chart.back}</button>}
      </p>
    )
  }
  const near = ((data.to - data.from) / 400) * 3
  const here = events.filter((event) => Math.abs(event.at - at) <= near).slice(-3)
  return (
    <p class="moment">
      {texts.chart.at(data.to - data.from < 3_600_000 ? stamp(at).slice(0, 8) : time(at))}
      {here.map((event) => (
        <span key={`${event.at}${event.text}`}> · {event.text}</span>
      ))}
      {moment.value !== null && (
        <button type="button" class="link" onClick={() => setParams({ at: null }, true)}>{texts.chart.atClear}</button>
      )}
    </p>
  )
}
