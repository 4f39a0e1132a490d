// A log with its tools: search, level, follow, older lines, download, and the chosen line.
import { useEffect, useMemo, useRef, useState } from 'preact/hooks'
import { API, follow, get, query } from '../api'
import { bare, bytesText, integer, iso, percentText, plain, time } from '../format'
import { logKeys } from '../keys'
import { params, range, setParams, toContainer } from '../route'
import { hostNames, isVisible, now } from '../store'
import { mayLook } from '../session'
import { texts } from '../texts'
import type { History, LogLine } from '../types'
import { LogList, type ListState } from './list'
import { Older } from './older'
import { jsonOf, noteOf, rowOf, searchOf, type Row } from './text'

export interface Source {
  host: string
  container: string
}

const TAIL = 200
// A link to a line also loads what came shortly after it.
const AFTER_MS = 30_000
const PAGES_TO_LINE = 10
const EMPTY_MS = 1500
const TYPING_MS = 200
const COLOURS = 5

/** With `whole`, the download has all of the log, and not only the range. */
export function Log({ sources, tall = false, whole = false }: { sources: Source[]; tall?: boolean; whole?: boolean }) {
  const element = useRef<HTMLDivElement>(null)
  const list = useRef<LogList | null>(null)
  const [state, setState] = useState<ListState>({ following: true, waiting: 0, rows: 0, hits: 0, shown: 0, short: false, roomy: false })
  const [row, setRow] = useState<Row | null>(null)
  const [lost, setLost] = useState(false)
  const [older, setOlder] = useState<'' | 'loading' | 'end' | 'more' | { error: string }>('more')
  const [round, setRound] = useState(0)
  const keys = sources.map((source) => `${source.host}/${source.container}`)
  const key = keys.join(' ')
  const many = sources.length > 1
  const severalHosts = new Set(sources.map((source) => source.host)).size > 1
  const search = params.value.get('search') ?? ''
  const only = params.value.get('only') === '1'
  const level = params.value.get('level') ?? ''
  const expression = useMemo(() => searchOf(search), [search])
  const wanted = useRef(params.value.get('line'))
  const wantedAt = useRef(Number(params.value.get('at')))
  const load = useRef<() => void>(() => undefined)

  useEffect(() => {
    const colours = new Map(keys.map((name, index) => [name, (index % COLOURS) + 1]))
    const made = new LogList(element.current!, {
      colour: (name) => colours.get(name) ?? 1,
      name: many
        ? (line) => {
            const name = plain(bare(line.line!.container))
            const whole = severalHosts ? `${hostNames.peek().get(line.host) ?? line.host}/${name}` : name
            return whole.length > 18 ? `${whole.slice(0, 17)}…` : whole
          }
        : null,
      changed: setState,
      chosen: (chosen) => {
        setRow(chosen)
        setParams({ line: chosen?.line?.id ?? null, at: chosen ? String(chosen.at) : null })
      },
      top: () => load.current(),
      restart: () => setRound((value) => value + 1),
    })
    list.current = made
    logKeys.current = (name) => {
      if (name === 'Escape') {
        if (!made.selectedRow) return false
        made.choose(null)
      } else if (name === 'j' || name === 'k') made.move(name === 'j' ? 1 : -1)
      else if (name === 'n' || name === 'N') made.move(name === 'n' ? 1 : -1, true)
      else made.follow()
      return true
    }
    return () => {
      logKeys.current = null
      list.current = null
      made.destroy()
    }
  }, [key])

  useEffect(() => {
    if (expression === undefined) return
    list.current?.refilter({ search: expression, only, level })
  }, [expression, only, level, key])

  // The live lines of all containers, one stream for each host.
  const visible = isVisible.value && mayLook.value
  useEffect(() => {
    if (!visible || !sources.length || wanted.current) return undefined
    const byHost = new Map<string, string[]>()
    for (const source of sources) byHost.set(source.host, [...(byHost.get(source.host) ?? []), source.container])
    const open = new Map<string, boolean>()
    const stops = [...byHost].map(([host, containers]) =>
      follow(`/hosts/${encodeURIComponent(host)}/logs${query({ containers: containers.join(','), tail: TAIL })}`, {
        event: (name, data) => {
          if (name === 'lines') list.current?.add((data as { lines: LogLine[] }).lines.map((line) => rowOf(line, host)))
          else if (name === 'dropped') {
            const { container, count } = data as { container: string; count: number }
            list.current?.add([noteOf(texts.log.dropped(integer(count), plain(bare(container))), now.peek(), host)])
          } else if (name === 'away') {
            const { error } = data as { error: string }
            list.current?.add([noteOf(texts.log.away(hostNames.peek().get(host) ?? plain(host), plain(error)), now.peek(), host)])
          }
        },
        open: (isOpen) => {
          open.set(host, isOpen)
          setLost([...open.values()].includes(false))
        },
        refused: (error) => list.current?.add([noteOf(error.message, now.peek(), host)]),
      }),
    )
    return () => stops.forEach((stop) => stop())
  }, [key, visible, round])

  // Older lines, from the files.
  const filesSearch = only && expression ? `(?i)${expression.source}` : null
  useEffect(() => {
    const control = new AbortController()
    let source: Older | null = null
    let busy = false
    setOlder('more')
    const next = async (): Promise<boolean> => {
      const made = list.current
      if (busy || !made || source?.done) return false
      busy = true
      setOlder('loading')
      try {
        source ??= new Older(
          sources,
          (host, container) => {
            if (wanted.current) return wantedAt.current + AFTER_MS
            const first = made.rows.all.find((other) => other.host === host && other.line?.container === container)
            // A container that has no line here begins where the list begins, so that nothing is between the two.
            return first?.at ?? made.rows.all.find((other) => other.line)?.at ?? now.peek()
          },
          filesSearch,
        )
        const rows = await source.next(control.signal)
        made.addOlder(rows)
        setOlder(source.done ? 'end' : 'more')
        busy = false
        return rows.length > 0 || !source.done
      } catch (error) {
        busy = false
        if ((error as Error).name !== 'AbortError') setOlder({ error: (error as Error).message })
        return false
      }
    }
    load.current = () => void next()
    if (wanted.current && list.current) {
      const id = wanted.current
      const at = wantedAt.current
      void (async () => {
        const made = list.current!
        made.pause()
        for (let page = 0; page < PAGES_TO_LINE; page += 1) {
          if (!(await next())) break
          const first = made.rows.all.find((other) => other.line)
          if (first && first.at < at) break
        }
        made.chooseLine(id, at)
      })()
    }
    // A container that does not run sends nothing; its last lines are in the files.
    const timer = setTimeout(() => {
      if (!wanted.current && !list.current?.rows.all.length) void next()
    }, EMPTY_MS)
    return () => {
      clearTimeout(timer)
      control.abort()
    }
  }, [key, filesSearch, round])

  const toNewest = () => {
    if (wanted.current) {
      wanted.current = null
      list.current?.clear()
      list.current!.following = true
      setRow(null)
      setParams({ line: null, at: null })
      setRound((value) => value + 1)
    } else list.current?.follow()
  }

  const typing = useRef(0)
  const notFound = state.rows > 0 && state.shown === 0
  return (
    <section class={`log ${tall ? 'tall' : ''}`} aria-label={texts.log.heading}>
      <div class="log-tools" role="group" aria-label={texts.log.heading}>
        {!tall && <h2>{texts.log.heading}</h2>}
        <input
          type="search"
          data-find={tall || undefined}
          class="log-search"
          placeholder={texts.log.search}
          aria-label={texts.log.searchLabel}
          aria-invalid={expression === undefined}
          key={`search ${key}`}
          defaultValue={search}
          onInput={(event) => {
            const { value } = event.currentTarget
            clearTimeout(typing.current)
            typing.current = setTimeout(() => setParams({ search: value }), TYPING_MS) as unknown as number
          }}
          onKeyDown={(event) => {
            if (event.key !== 'Enter') return
            list.current?.move(event.shiftKey ? 1 : -1, true)
            event.preventDefault()
          }}
        />
        {search && (
          <>
            <span class="dim" role="status">{expression === undefined ? texts.log.badSearch : texts.log.hits(integer(state.hits))}</span>
            <button type="button" aria-label={texts.log.previous} onClick={() => list.current?.move(-1, true)}>↑</button>
            <button type="button" aria-label={texts.log.next} onClick={() => list.current?.move(1, true)}>↓</button>
            <label class="check">
              <input type="checkbox" checked={only} onChange={(event) => setParams({ only: event.currentTarget.checked ? '1' : null }, true)} />
              {texts.log.only}
            </label>
          </>
        )}
        <label class="choice">
          <span>{texts.log.level}</span>
          <select value={level || 'all'} onChange={(event) => setParams({ level: event.currentTarget.value === 'all' ? null : event.currentTarget.value }, true)}>
            {Object.entries(texts.log.levels).map(([value, text]) => <option key={value} value={value}>{text}</option>)}
          </select>
        </label>
        <span class="grow" />
        {lost && <span class="warning-text" role="status">{texts.log.lost}</span>}
        {sources.length === 1 && (
          <a download href={`${API}/hosts/${encodeURIComponent(sources[0]!.host)}/logs/download${query({
            container: sources[0]!.container,
            ...(whole ? {} : { from: range.value.name ? Math.floor(now.value / 60_000) * 60_000 - range.value.span : range.value.from,
              to: range.value.name ? Math.floor(now.value / 60_000 + 1) * 60_000 : range.value.to }),
          })}`}>{texts.log.download}<span class="phone"> {!whole && range.value.name ? texts.ranges[range.value.name] : ''}</span></a>
        )}
        <button type="button" class="follow" aria-pressed={state.following && !wanted.current} onClick={() => (state.following && !wanted.current ? list.current?.pause() : toNewest())}>
          {state.following && !wanted.current ? texts.log.following : texts.log.follow}
        </button>
      </div>
      <div class={`log-frame ${state.roomy ? 'roomy' : ''}`}>
        <div ref={element} class={`log-list ${many ? 'many' : 'one'}`} tabIndex={0} role="listbox" aria-label={texts.log.lines} onKeyDown={(event) => {
          const made = list.current
          if (!made || event.ctrlKey || event.metaKey) return
          if (event.key === 'ArrowDown' || event.key === 'ArrowUp') made.move(event.key === 'ArrowDown' ? 1 : -1)
          else if (event.key === 'End') toNewest()
          else return
          event.preventDefault()
        }} />
        {older === 'loading' ? <p class="log-top" role="status">{texts.log.loadingOlder}</p>
          : typeof older === 'object' ? <p class="log-top">{texts.log.olderFailed(older.error)} <button type="button" class="link" onClick={() => load.current()}>{texts.log.older}</button></p>
          : state.short && state.shown > 0 && older === 'more' ? <p class="log-top"><button type="button" class="link" onClick={() => load.current()}>{texts.log.older}</button></p>
          : (!state.following || state.short) && older === 'end' ? <p class="log-top">{texts.log.end}</p> : null}
        {!state.rows && older !== 'loading' && typeof older !== 'object' && <p class="log-empty">{texts.log.empty}</p>}
        {notFound && <p class="log-empty">{texts.log.noneMatch} {older === 'more' && <button type="button" class="link" onClick={() => load.current()}>{texts.log.older}</button>}</p>}
        {!state.following && (
          <button type="button" class="log-new" onClick={toNewest}>
            {state.waiting ? texts.log.newLines(integer(state.waiting)) : texts.log.follow} ↓
          </button>
        )}
      </div>
      {row?.line && <Chosen row={row} close={() => list.current?.choose(null)} />}
    </section>
  )
}

/** All of one line, its link, and the figures of its container at that moment. */
function Chosen({ row, close }: { row: Row; close: () => void }) {
  const line = row.line!
  const [figures, setFigures] = useState('')
  const [copied, setCopied] = useState(false)
  const json = useMemo(() => jsonOf(line.text), [line])
  useEffect(() => {
    const control = new AbortController()
    setFigures('')
    setCopied(false)
    const names = [`container:${line.container}:cpu`, `container:${line.container}:memory`, 'cpu', 'load1']
    get<History>(`/hosts/${encodeURIComponent(row.host)}/history${query({ series: names.join(','), from: line.at - 60_000, to: line.at + 60_000, points: 24 })}`, control.signal).then((answer) => {
      let best = -1
      answer.times.forEach((at, index) => {
        if (best < 0 || Math.abs(at - line.at) < Math.abs(answer.times[best]! - line.at)) best = index
      })
      const value = (name: string) => answer.series[name]?.[best]
      const [cpu, memory, all, load] = names.map(value)
      const parts = [
        cpu != null && `${plain(bare(line.container))} ${texts.table.cpu} ${percentText(cpu)}`,
        memory != null && `${texts.table.memory} ${bytesText(memory)}`,
        all != null && `${hostNames.peek().get(row.host) ?? row.host} ${texts.table.cpu} ${percentText(all)}`,
        load != null && `${texts.table.load} ${load.toFixed(2)}`,
      ].filter(Boolean)
      setFigures(parts.join(' · '))
    }, () => undefined)
    return () => control.abort()
  }, [row])
  return (
    <aside class="chosen" aria-label={texts.log.details}>
      <p>
        <time dateTime={iso(line.at)} title={iso(line.at)}>{time(line.at)}</time>
        {' · '}
        <a href={toContainer(row.host, line.container)}>{plain(bare(line.container))}</a>
        {line.level && ` · ${line.level}`}
        {line.stream && ` · ${line.stream}`}
        {figures && <span class="dim"> · {texts.log.figures}: {figures}</span>}
        <span class="grow" />
        <button type="button" class="link" onClick={() => {
          void navigator.clipboard?.writeText(location.href).then(() => setCopied(true), () => undefined)
        }}>{copied ? texts.log.copied : texts.log.link}</button>
        <button type="button" class="link" onClick={close}>{texts.close}</button>
      </p>
      <pre tabIndex={0}>{json ? plain(JSON.stringify(json, null, 2)) : plain(line.text)}</pre>
      {line.cut && <p class="dim">{texts.log.cut}</p>}
    </aside>
  )
}
