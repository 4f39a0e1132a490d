// A table that can be sorted and filtered. Both are in the address.
import type { ComponentChildren } from 'preact'
import { useEffect, useRef, useState } from 'preact/hooks'
import { params, setParams } from '../route'
import { texts } from '../texts'

export interface Column<Row> {
  id: string
  head: string
  /** Dimmed text after the head, such as a unit. */
  unit?: string
  right?: boolean
  /** Not shown on a phone, or only on a wide screen. */
  hide?: 'phone' | 'narrow'
  by?: (row: Row) => number | string | null | undefined
  cell: (row: Row) => ComponentChildren
}

interface Props<Row> {
  name: string
  caption: string
  captionHidden?: boolean
  rows: Row[]
  columns: Column<Row>[]
  id: (row: Row) => string
  /** The order without a choice in the address: a column, with - for the largest first. */
  order: string
  /** Text of a row for the filter. */
  text?: (row: Row) => string
  row?: (row: Row) => { class?: string; 'data-log'?: string }
  /** Rows that stay at the end whatever the order is. */
  last?: (row: Row) => boolean
  most?: number
  empty?: string
}

// Figures change all the time. Rows change places only this often, and never under the pointer or the focus.
const REORDER_MS = 5000

function compare(a: unknown, b: unknown): number {
  const aNone = a === null || a === undefined
  const bNone = b === null || b === undefined
  if (aNone || bNone) return aNone && bNone ? 0 : aNone ? 1 : -1
  if (typeof a === 'number' && typeof b === 'number') return a - b
  return String(a).localeCompare(String(b), 'en', { numeric: true })
}

export function Table<Row>(props: Props<Row>) {
  const { name, columns, id } = props
  const chosen = params.value.get(name) ?? props.order
  const descending = chosen.startsWith('-')
  const key = descending ? chosen.slice(1) : chosen
  const by = columns.find((column) => column.id === key)?.by
  const body = useRef<HTMLTableSectionElement>(null)
  const memory = useRef({ chosen: '', at: 0, order: [] as string[] })
  const [all, setAll] = useState(false)
  const filter = (params.value.get('q') ?? '').toLowerCase()

  let rows = props.rows
  if (filter && props.text) rows = rows.filter((row) => props.text!(row).toLowerCase().includes(filter))

  const held = memory.current
  const now = Date.now()
  const touched = () => {
    const element = body.current
    return element ? element.matches(':hover') || element.contains(document.activeElement) : false
  }
  const anew = held.chosen !== chosen || (now - held.at >= REORDER_MS && !touched())
  const places = new Map(held.order.map((row, index) => [row, index]))
  const lastOf = (row: Row) => (props.last?.(row) ? 1 : 0)
  const sorted = [...rows].sort((a, b) => {
    const late = lastOf(a) - lastOf(b)
    if (late) return late
    if (!anew) {
      // Rows that were not there before go to the end until the next change of the order.
      const before = (places.get(id(a)) ?? Infinity) - (places.get(id(b)) ?? Infinity)
      if (before < 0 || before > 0) return before
    }
    const x = by?.(a)
    const y = by?.(b)
    const none = compare(x === undefined ? null : x, null) - compare(y === undefined ? null : y, null)
    const order = compare(x, y)
    const bothKnown = x !== null && x !== undefined && y !== null && y !== undefined
    return (descending && bothKnown ? -order : none || order) || compare(id(a), id(b))
  })
  useEffect(() => {
    if (anew) memory.current = { chosen, at: now, order: sorted.map(id) }
    else if (sorted.length !== held.order.length) memory.current = { ...held, order: sorted.map(id) }
  })

  const most = all || filter ? Infinity : (props.most ?? Infinity)
  const shown = sorted.slice(0, most)
  return (
    <>
      <div class="table">
        <table>
          <caption class={props.captionHidden ? 'hidden' : ''}>{props.caption}</caption>
          <thead>
            <tr>
              {columns.map((column) => {
                const active = column.id === key
                const classes = `${column.right ? 'right' : ''} ${column.hide ?? ''}`
                const head = (
                  <>
                    {column.head}
                    {column.unit && <span class="unit"> {column.unit}</span>}
                  </>
                )
                return (
                  <th key={column.id} scope="col" class={classes} aria-sort={active && column.by ? (descending ? 'descending' : 'ascending') : undefined}>
                    {column.by ? (
                      <button
                        type="button"
                        onClick={() => {
                          const down = column.right ?? false
                          const next = active ? (descending ? column.id : `-${column.id}`) : down ? `-${column.id}` : column.id
                          setParams({ [name]: next === props.order ? null : next }, true)
                        }}
                      >
                        {head}
                        <span class="arrow" aria-hidden="true">{active ? (descending ? '↓' : '↑') : ''}</span>
                      </button>
                    ) : (
                      head
                    )}
                  </th>
                )
              })}
            </tr>
          </thead>
          <tbody ref={body}>
            {shown.map((row) => (
              <tr key={id(row)} {...props.row?.(row)}>
                {columns.map((column, index) => {
                  const classes = `${column.right ? 'right' : ''} ${column.hide ?? ''}`
                  return index === 0 ? (
                    <th key={column.id} scope="row" class={classes}>{column.cell(row)}</th>
                  ) : (
                    <td key={column.id} class={classes}>{column.cell(row)}</td>
                  )
                })}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {!shown.length && (filter ? <p class="quiet">{texts.table.noneMatch(params.value.get('q') ?? '')}</p> : props.empty && <p class="quiet">{props.empty}</p>)}
      {sorted.length > most && (
        <button type="button" class="link" onClick={() => setAll(true)}>{texts.table.all(sorted.length)}</button>
      )}
    </>
  )
}
