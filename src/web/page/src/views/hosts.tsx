// All hosts, the problems on top.
import { decimal, iso, percent, plain, rate, span, time } from '../format'
import { Bar, Fig, fullness, Mark, Spark } from '../parts/figures'
import { Problems } from '../parts/problems'
import { Table, type Column } from '../parts/table'
import { hosts, now } from '../store'
import { toHost, toLogs } from '../route'
import { texts } from '../texts'
import type { HostRow, Problem } from '../types'
import { HostBody } from './host'

const t = texts.table

const share = (part: number | null, whole: number | null) => (part !== null && whole ? (part / whole) * 100 : null)

/** Figures older than two intervals are dimmed and show their age. */
export function isStale(row: HostRow): boolean {
  return row.state !== 'live' || (row.newest_at !== null && row.interval_ms !== null && now.value - row.newest_at > row.interval_ms * 2 + 1000)
}

/** How fresh the figures are, if they are not. */
export function Age({ row }: { row: HostRow }) {
  if (row.state === 'away') {
    const since = row.away_since ?? row.newest_at
    return since === null ? null : (
      <span class="age" title={row.error ? plain(row.error) : iso(since)}>{texts.state.away(time(since, false), span(now.value - since))}</span>
    )
  }
  if (row.state === 'waiting') return <span class="age" title={row.error ? plain(row.error) : undefined}>{texts.state.waiting}</span>
  if (isStale(row) && row.newest_at !== null) return <span class="age">{texts.state.stale(span(now.value - row.newest_at))}</span>
  return null
}

function columns(worst: Map<string, Problem['severity']>, most: number): Column<HostRow>[] {
  const weight = (row: HostRow) => (worst.get(row.id) === 'critical' ? 0 : worst.get(row.id) === 'warning' ? 1 : row.state === 'live' ? 2 : 1.5)
  return [
    {
      id: 'host',
      head: t.host,
      by: (row) => `${weight(row)} ${row.name}`,
      cell: (row) => (
        <>
          <a href={toHost(row.id)} data-row>{plain(row.name)}</a>
          {worst.has(row.id) && <Mark level={worst.get(row.id)!} />}
          <Age row={row} />
        </>
      ),
    },
    {
      id: 'cpu', head: t.cpu, right: true, by: (row) => row.cpu,
      cell: (row) => <><Fig parts={percent(row.cpu)} /><Spark values={row.spark} most={most} /></>,
    },
    {
      id: 'memory', head: t.memory, right: true, by: (row) => share(row.memory_used, row.memory_total),
      cell: (row) => {
        const used = share(row.memory_used, row.memory_total)
        return <><Fig parts={percent(used)} /><Bar percent={used} level={fullness(used)} /></>
      },
    },
    {
      id: 'disk', head: t.disk, right: true, by: (row) => row.disk_used_percent,
      cell: (row) => (
        <>
          <Mark level={fullness(row.disk_used_percent)} />
          <Fig parts={percent(row.disk_used_percent)} title={row.disk_mount ? plain(row.disk_mount) : undefined} />
          <Bar percent={row.disk_used_percent} level={fullness(row.disk_used_percent)} />
        </>
      ),
    },
    {
      id: 'net', head: t.net, right: true, hide: 'phone', by: (row) => (row.net_in === null && row.net_out === null ? null : (row.net_in ?? 0) + (row.net_out ?? 0)),
      cell: (row) => <><Fig parts={rate(row.net_in)} /><span class="second"><Fig parts={rate(row.net_out)} /></span></>,
    },
    { id: 'load', head: t.load, right: true, hide: 'phone', by: (row) => row.load1, cell: (row) => <Fig parts={[decimal(row.load1), '']} title={row.cores ? texts.facts.cores(row.cores) : undefined} /> },
    {
      id: 'containers', head: t.containers, right: true, hide: 'phone', by: (row) => row.containers_up,
      cell: (row) => (
        <>
          {row.containers_up === null ? '–' : t.running(row.containers_up)}
          {row.containers_down ? <span class="down"> {t.down(row.containers_down)}</span> : null}
        </>
      ),
    },
    { id: 'up', head: t.up, right: true, hide: 'narrow', by: (row) => row.uptime_ms, cell: (row) => <span class="dim">{span(row.uptime_ms)}</span> },
  ]
}

export function Freshness() {
  const answer = hosts.value
  if (!answer) return null
  const newest = answer.hosts.reduce((most, row) => Math.max(most, row.newest_at ?? 0), 0)
  const { length } = answer.problems
  return (
    <span class="fresh">
      {length ? texts.problems.some(length, answer.hosts.length) : texts.problems.none(answer.hosts.length)}
      {newest > 0 && <span class="dim">, {texts.problems.newest(span(now.value - newest))}</span>}
    </span>
  )
}

export function Hosts() {
  const answer = hosts.value
  if (!answer) return <p class="quiet">{texts.state.loading}</p>
  const worst = new Map<string, Problem['severity']>()
  for (const problem of answer.problems) if (worst.get(problem.host) !== 'critical') worst.set(problem.host, problem.severity)
  // All lines have one scale, so that they can be compared.
  const most = answer.hosts.reduce((top, row) => (row.spark ?? []).reduce<number>((value, point) => Math.max(value, point ?? 0), top), 25)
  const single = answer.hosts.length === 1 ? answer.hosts[0]! : null
  return (
    <>
      <Problems problems={answer.problems} withHost={!single} />
      {answer.hosts.length === 0 && <p class="quiet">{t.noHosts}</p>}
      {answer.hosts.length > 0 && (
        <Table
          name="sort"
          caption={t.hosts}
          captionHidden
          rows={answer.hosts}
          columns={columns(worst, most)}
          id={(row) => row.id}
          order="host"
          text={single ? undefined : (row) => `${row.name} ${row.id}`}
          row={(row) => ({ class: isStale(row) ? 'stale' : '', 'data-log': toLogs([row.id]) })}
        />
      )}
      {single && (
        <>
          <p class="quiet">{t.addHost} <code>{t.addHostCommand}</code></p>
          <HostBody id={single.id} withProblems={false} />
        </>
      )}
    </>
  )
}
