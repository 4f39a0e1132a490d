// One host: facts, problems, charts, and its tables.
import type { ComponentChildren } from 'preact'
import { bare, bytes, bytesText, decimal, integer, iso, parsed, percent, percentText, plain, rate, span, time } from '../format'
import { useEvents, useHistory } from '../history'
import { Chart, Moment, type Line } from '../parts/chart'
import { Bar, Fig, fullness, Mark } from '../parts/figures'
import { Problems } from '../parts/problems'
import { Table, type Column } from '../parts/table'
import { moment, setParams, toContainer, toHosts, toLogs } from '../route'
import { host, hostError, hosts, isPhone, now } from '../store'
import { texts } from '../texts'
import type { Container, Disk, DiskIo, HostAnswer, HostEvent, Interface, Problem, Snapshot, Stopped, TopProcess, Unit } from '../types'
import { Age, isStale } from './hosts'

const t = texts.table
const c = texts.chart
const MIB = 1024 ** 2
const GIB = 1024 ** 3

export function Facts({ parts, first }: { parts: (string | false | null | undefined)[]; first?: ComponentChildren }) {
  return (
    <ul class="facts">
      {first && <li>{first}</li>}
      {parts.filter(Boolean).map((part) => <li key={part as string}>{part}</li>)}
    </ul>
  )
}

function HostFacts({ snapshot }: { snapshot: Snapshot }) {
  const { host: info, system, agent } = snapshot
  return (
    <Facts
      parts={[
        info && plain(info.os),
        info && `Linux ${plain(info.kernel)} ${plain(info.arch)}`,
        info && texts.facts.cores(info.cpus),
        system && bytesText(system.memory_total * MIB),
        system && (system.swap_total ? texts.facts.swap(bytesText((system.swap_used ?? 0) * MIB), bytesText(system.swap_total * MIB)) : texts.facts.noSwap),
        system && texts.facts.load(decimal(system.load_avg['1m']), decimal(system.load_avg['5m']), decimal(system.load_avg['15m'])),
        system && texts.facts.up(span(system.uptime * 1000)),
        agent && texts.facts.agentCost(percentText(agent.cpu_percent), bytesText(agent.memory_rss)),
      ]}
    />
  )
}

const SERIES = [
  'cpu', 'cpu.user', 'cpu.system', 'cpu.iowait', 'cpu.steal', 'memory.used', 'memory.cached', 'swap.used',
  'disk.read', 'disk.write', 'net.in', 'net.out', 'pressure.cpu', 'pressure.memory', 'pressure.io', 'temperature',
]

const line = (series: string, name: string, colour: number, fill = false): Line => ({ series, name, colour, fill })

const CPU = [line('cpu', c.total, 1, true), line('cpu.user', c.user, 2), line('cpu.system', c.system, 3), line('cpu.iowait', c.iowait, 4), line('cpu.steal', c.steal, 5)]
const MEMORY = [line('memory.used', c.used, 1, true), line('memory.cached', c.cached, 2), line('swap.used', c.swap, 3)]
const DISK = [line('disk.read', c.read, 1), line('disk.write', c.write, 2)]
const NETWORK = [line('net.in', c.received, 1), line('net.out', c.sent, 2)]
const PRESSURE = [line('pressure.cpu', texts.table.cpu, 1), line('pressure.memory', texts.table.memory, 2), line('pressure.io', 'io', 3)]
const TEMPERATURE = [line('temperature', c.hottest, 1)]

function Charts({ id, snapshot }: { id: string; snapshot: Snapshot | null }) {
  const data = useHistory(id, SERIES)
  const events = useEvents(id, null)
  const total = snapshot?.system ? snapshot.system.memory_total * MIB : null
  const has = (lines: Line[]) => data !== null && lines.some((each) => data.series[each.series]?.some((value) => value !== null))
  const critical = snapshot?.system?.temperatures?.reduce((least, sensor) => Math.min(least, sensor.critical ?? Infinity), Infinity)
  return (
    <>
      <Moment events={events} data={data} />
      <div class="charts">
        <Chart title={c.cpu} unit="percent" lines={CPU} data={data} most={100} events={events} />
        <Chart title={c.memory} unit="bytes" lines={MEMORY} data={data} {...(total === null ? {} : { most: total })} events={events} />
        <Chart title={c.network} unit="rate" lines={NETWORK} data={data} events={events} />
        <Chart title={c.disk} unit="rate" lines={DISK} data={data} events={events} />
        {has(PRESSURE) && <Chart title={c.pressure} unit="percent" lines={PRESSURE} data={data} events={events} />}
        {has(TEMPERATURE) && <Chart title={c.temperature} unit="celsius" lines={TEMPERATURE} data={data} limit={critical && critical < Infinity ? { value: critical, name: texts.problems.critical } : null} events={events} />}
        <Events id={id} events={events} />
      </div>
    </>
  )
}

const EVENTS_SHOWN = 6

/** The newest events of the range as text: the marks in the charts are only for the pointer. */
export function Events({ id, events, withContainer = true }: { id: string; events: HostEvent[]; withContainer?: boolean }) {
  if (!events.length) return null
  const at = moment.value
  return (
    <details class="events" open={!withContainer && events.length <= EVENTS_SHOWN}>
      <summary>{c.events} <span class="dim">{integer(events.length)}</span></summary>
      <ol>
        {events.slice(-50).reverse().map((event) => (
          <li key={`${event.at}${event.text}`}>
            <button type="button" class="link time" aria-pressed={at === event.at} title={iso(event.at)} onClick={() => setParams({ at: String(event.at) }, true)}>{time(event.at)}</button>
            <Mark level={event.severity} />
            {event.severity !== 'info' && <span class="hidden">{event.severity}: </span>}
            {withContainer && event.container ? <a href={toContainer(id, event.container)}>{event.text}</a> : event.text}
          </li>
        ))}
      </ol>
    </details>
  )
}

// The containers, with the stopped ones at the end.

interface ContainerRow {
  key: string
  name: string
  image: string
  running: Container | null
  stopped: Stopped | null
  state: string
  level: string
  since: number | null
}

const sum = (values: (number | undefined)[]) => (values.every((value) => value === undefined) ? null : values.reduce<number>((total, value) => total + (value ?? 0), 0))

export const containerNet = (container: Container): [number | null, number | null] => {
  const all = Object.values(container.network ?? {})
  return [sum(all.map((one) => one.rx_bytes_per_second)), sum(all.map((one) => one.tx_bytes_per_second))]
}

export function stoppedState(stopped: Stopped): string {
  const parts = [plain(stopped.state)]
  if (stopped.exit_code !== undefined) parts.push(`(${stopped.exit_code})`)
  if (stopped.oom_killed) parts.push(t.oom)
  return parts.join(' ')
}

function containerRows(snapshot: Snapshot): ContainerRow[] {
  const running = (snapshot.containers ?? []).map((container): ContainerRow => {
    const state = container.health && container.health !== 'healthy' ? container.health : container.status
    return {
      key: container.id,
      name: bare(container.name),
      image: plain(container.image),
      running: container,
      stopped: null,
      state: plain(state),
      level: container.health === 'unhealthy' || container.status === 'dead' ? 'critical' : container.status !== 'running' || container.health === 'starting' ? 'warning' : '',
      since: container.uptime === undefined ? null : container.uptime * 1000,
    }
  })
  const stopped = (snapshot.stopped ?? []).map((container): ContainerRow => {
    const finished = parsed(container.finished_at)
    return {
      key: container.id,
      name: bare(container.name),
      image: plain(container.image),
      running: null,
      stopped: container,
      state: stoppedState(container),
      level: container.oom_killed || container.state === 'dead' || container.error ? 'critical' : container.exit_code && ![130, 137, 143].includes(container.exit_code) ? 'warning' : '',
      since: finished === null ? null : now.value - finished,
    }
  })
  return running.concat(stopped)
}

function containerColumns(id: string, cores: number | null): Column<ContainerRow>[] {
  return [
    {
      id: 'name', head: t.container, by: (row) => row.name,
      cell: (row) => <a href={toContainer(id, row.name)} data-row>{plain(row.name)}</a>,
    },
    { id: 'image', head: t.image, hide: 'narrow', by: (row) => row.image, cell: (row) => <span class="dim clip" title={row.image}>{row.image.slice(row.image.lastIndexOf('/') + 1)}</span> },
    {
      id: 'state', head: t.state, by: (row) => row.state,
      cell: (row) => <><Mark level={row.level} /><span class={row.level ? `${row.level}-text` : row.running ? '' : 'dim'}>{row.state}</span></>,
    },
    {
      id: 'cpu', head: t.cpu, right: true, by: (row) => row.running?.cpu_percent,
      cell: (row) => {
        if (!row.running) return ''
        const { cpu_percent: cpu, cpu_limit: limit } = row.running
        const of = limit ?? cores ?? 1
        return <><Fig parts={percent(cpu)} title={limit ? texts.facts.cpuLimit(texts.facts.cores(limit)) : undefined} /><Bar percent={(cpu ?? 0) / of} /></>
      },
    },
    {
      id: 'memory', head: t.memory, right: true, by: (row) => row.running?.memory_usage,
      cell: (row) => {
        if (!row.running) return ''
        const { memory_usage: used, memory_limit: limit } = row.running
        const full = used !== undefined && limit ? (used / limit) * 100 : null
        return <><Fig parts={bytes(used)} title={limit ? `${t.limit} ${bytesText(limit)}` : undefined} /><Bar percent={full} level={fullness(full)} /></>
      },
    },
    {
      id: 'net', head: t.net, right: true, hide: 'phone', by: (row) => (row.running ? sum(containerNet(row.running).map((value) => value ?? undefined)) : null),
      cell: (row) => {
        if (!row.running) return ''
        const [received, sent] = containerNet(row.running)
        return <><Fig parts={rate(received)} /><span class="second"><Fig parts={rate(sent)} /></span></>
      },
    },
    {
      id: 'io', head: t.io, right: true, hide: 'narrow', by: (row) => (row.running ? sum([row.running.block_io?.read_bytes_per_second, row.running.block_io?.write_bytes_per_second]) : null),
      cell: (row) => row.running ? <><Fig parts={rate(row.running.block_io?.read_bytes_per_second)} /><span class="second"><Fig parts={rate(row.running.block_io?.write_bytes_per_second)} /></span></> : '',
    },
    { id: 'restarts', head: t.restarts, right: true, hide: 'narrow', by: (row) => row.running?.restart_count, cell: (row) => <span class={row.running?.restart_count ? '' : 'dim'}>{row.running?.restart_count || ''}</span> },
    { id: 'up', head: t.up, right: true, hide: 'phone', by: (row) => row.since, cell: (row) => <span class="dim">{row.stopped && row.since !== null ? t.stoppedAgo(span(row.since)) : span(row.since)}</span> },
  ]
}

function processColumns(id: string): Column<TopProcess>[] {
  return [
    { id: 'name', head: t.process, by: (row) => row.name, cell: (row) => <span class="clip" title={row.command ? plain(row.command) : undefined}>{plain(row.name)}</span> },
    { id: 'pid', head: t.pid, right: true, hide: 'phone', by: (row) => row.pid, cell: (row) => <span class="dim">{row.pid}</span> },
    { id: 'user', head: t.user, hide: 'phone', by: (row) => row.user, cell: (row) => <span class="dim">{plain(row.user ?? '')}</span> },
    { id: 'container', head: t.where, by: (row) => row.container, cell: (row) => (row.container ? <a class="clip" title={plain(bare(row.container))} href={toContainer(id, bare(row.container))}>{plain(bare(row.container))}</a> : '') },
    { id: 'cpu', head: t.cpu, right: true, by: (row) => row.cpu, cell: (row) => <Fig parts={percent(row.cpu)} /> },
    { id: 'memory', head: t.memory, right: true, by: (row) => row.memory_rss ?? row.mem, cell: (row) => <Fig parts={row.memory_rss === undefined ? percent(row.mem) : bytes(row.memory_rss)} /> },
  ]
}

const UNITS: Column<Unit>[] = [
  { id: 'name', head: t.unit, by: (row) => row.name, cell: (row) => <span class="clip">{plain(row.name)}</span> },
  {
    id: 'state', head: t.state, by: (row) => row.state,
    cell: (row) => {
      const level = row.state === 'failed' ? 'critical' : ''
      return <><Mark level={level} /><span class={level ? 'critical-text' : 'dim'}>{plain([row.state, row.sub_state && row.sub_state !== row.state ? `(${row.sub_state})` : ''].filter(Boolean).join(' '))}</span></>
    },
  },
  { id: 'restarts', head: t.restarts, right: true, hide: 'phone', by: (row) => row.restarts, cell: (row) => <span class="dim">{row.restarts || ''}</span> },
  { id: 'cpu', head: t.cpu, right: true, by: (row) => row.cpu_percent, cell: (row) => <Fig parts={percent(row.cpu_percent)} /> },
  { id: 'memory', head: t.memory, right: true, by: (row) => row.memory, cell: (row) => <Fig parts={bytes(row.memory)} /> },
  { id: 'since', head: t.since, right: true, hide: 'phone', by: (row) => { const at = parsed(row.since); return at === null ? null : now.value - at }, cell: (row) => { const at = parsed(row.since); return <span class="dim">{at === null ? '' : span(now.value - at)}</span> } },
]

const full = (row: Disk) => (row.used !== undefined && row.total ? (row.used / row.total) * 100 : null)

const DISKS: Column<Disk>[] = [
  { id: 'mount', head: t.mount, by: (row) => row.mount, cell: (row) => <><span class="clip">{plain(row.mount)}</span>{row.readonly && <span class="age">{t.readOnly}</span>}{row.stuck && <span class="age">{t.stuck}</span>}{row.error && <span class="age">{plain(row.error)}</span>}</> },
  { id: 'device', head: t.device, hide: 'phone', by: (row) => row.device, cell: (row) => <span class="dim clip">{plain(row.device)}</span> },
  { id: 'type', head: t.type, hide: 'phone', by: (row) => row.type, cell: (row) => <span class="dim">{plain(row.type)}</span> },
  { id: 'used', head: t.used, right: true, by: (row) => row.used, cell: (row) => <Fig parts={bytes(row.used === undefined ? null : row.used * GIB)} /> },
  { id: 'size', head: t.size, right: true, by: (row) => row.total, cell: (row) => <Fig parts={bytes(row.total === undefined ? null : row.total * GIB)} /> },
  { id: 'full', head: '%', right: true, by: full, cell: (row) => <><Mark level={fullness(full(row))} /><Fig parts={percent(full(row))} /><Bar percent={full(row)} level={fullness(full(row))} /></> },
]

const DEVICES: Column<DiskIo>[] = [
  { id: 'device', head: t.device, by: (row) => row.device, cell: (row) => plain(row.device) },
  { id: 'read', head: t.read, right: true, by: (row) => row.read_bytes_per_second, cell: (row) => <Fig parts={rate(row.read_bytes_per_second)} /> },
  { id: 'write', head: t.write, right: true, by: (row) => row.write_bytes_per_second, cell: (row) => <Fig parts={rate(row.write_bytes_per_second)} /> },
  { id: 'busy', head: t.busy, right: true, by: (row) => row.busy_percent, cell: (row) => <><Fig parts={percent(row.busy_percent)} /><Bar percent={row.busy_percent} /></> },
]

function interfaceColumns(id: string): Column<Interface>[] {
  return [
    { id: 'name', head: t.interface, by: (row) => row.name, cell: (row) => <>{plain(row.name)}{row.up === false && <span class="age">{t.interfaceDown}</span>}</> },
    { id: 'kind', head: t.type, hide: 'phone', by: (row) => row.kind, cell: (row) => <span class="dim">{row.container ? <a class="clip" title={plain(bare(row.container))} href={toContainer(id, bare(row.container))}>{plain(bare(row.container))}</a> : plain(row.kind ?? '')}</span> },
    { id: 'in', head: t.received, right: true, by: (row) => row.bytes_recv_per_second, cell: (row) => <Fig parts={rate(row.bytes_recv_per_second)} /> },
    { id: 'out', head: t.sent, right: true, by: (row) => row.bytes_sent_per_second, cell: (row) => <Fig parts={rate(row.bytes_sent_per_second)} /> },
    { id: 'errors', head: t.errors, right: true, hide: 'phone', by: (row) => (row.errors_recv ?? 0) + (row.errors_sent ?? 0) + (row.drops_recv ?? 0) + (row.drops_sent ?? 0), cell: (row) => <span class="dim">{integer((row.errors_recv ?? 0) + (row.errors_sent ?? 0))}, {integer((row.drops_recv ?? 0) + (row.drops_sent ?? 0))}</span> },
  ]
}

/** The processes that use the most CPU and those that use the most memory, each once. */
function processes(snapshot: Snapshot): TopProcess[] {
  const all = new Map<number, TopProcess>()
  for (const process of [...(snapshot.system?.top_memory ?? []), ...(snapshot.system?.top_processes ?? [])]) all.set(process.pid, process)
  return [...all.values()]
}

/** All that is known of a host below its name. */
export function HostBody({ id, withProblems = true }: { id: string; withProblems?: boolean }) {
  const answer: HostAnswer | null = host.value?.row.id === id ? host.value : null
  const snapshot = answer?.snapshot ?? null
  const stale = answer !== null && isStale(answer.row)
  const system = snapshot?.system
  const problems: Problem[] = answer?.problems ?? hosts.value?.problems.filter((problem) => problem.host === id) ?? []
  const units = system?.units ?? []
  const failing = Object.entries(snapshot?.sources ?? {}).filter(([, source]) => source?.status === 'failing')
  const interfaces = (system?.network ?? []).filter((one) => one.kind !== 'loopback')
  const containers = snapshot && (
    <Table name="sort" caption={t.containersHeading} rows={containerRows(snapshot)} columns={containerColumns(id, snapshot.host?.cpus ?? null)} id={(row) => row.key} order="name"
      text={(row) => `${row.name} ${row.image} ${row.state}`} last={(row) => row.stopped !== null} empty={t.noContainers}
      row={(row) => ({ class: row.stopped ? 'stopped' : '', 'data-log': toLogs([`${id}/${row.name}`]) })} />
  )
  return (
    <div class={stale ? 'stale' : ''}>
      {withProblems && <Problems problems={problems} withHost={false} />}
      {snapshot && <HostFacts snapshot={snapshot} />}
      {failing.map(([name, source]) => <p key={name} class="warning-text">▲ {texts.facts.source(name, plain(source!.error ?? ''))}</p>)}
      {isPhone.value && containers}
      <Charts id={id} snapshot={snapshot} />
      {!isPhone.value && containers}
      {snapshot && (
        <>
          <div class="pair">
            <div><Table name="psort" caption={t.processes} rows={processes(snapshot)} columns={processColumns(id)} id={(row) => String(row.pid)} order="-cpu" most={10} text={(row) => `${row.name} ${row.user} ${row.container} ${row.command}`} /></div>
            {units.length > 0 && <div><Table name="usort" caption={t.units} rows={units} columns={UNITS} id={(row) => row.name} order="-cpu" most={10} text={(row) => `${row.name} ${row.state}`} /></div>}
            {system?.disks && <div><Table name="dsort" caption={t.disks} rows={system.disks} columns={DISKS} id={(row) => row.mount} order="-full" most={10} text={(row) => `${row.mount} ${row.device}`} /></div>}
            {system?.disk_io && <div><Table name="iosort" caption={t.devices} rows={system.disk_io} columns={DEVICES} id={(row) => row.device} order="-busy" most={10} text={(row) => row.device} /></div>}
            {interfaces.length > 0 && <div><Table name="nsort" caption={t.interfaces} rows={interfaces} columns={interfaceColumns(id)} id={(row) => row.name} order="-in" most={10} text={(row) => `${row.name} ${row.container}`} /></div>}
          </div>
        </>
      )}
    </div>
  )
}

export function Host({ id }: { id: string }) {
  const row = hosts.value?.hosts.find((other) => other.id === id) ?? null
  const answer = host.value?.row.id === id ? host.value.row : row
  return (
    <>
      {answer && isStale(answer) && <p><Age row={answer} /></p>}
      {answer?.error && !hosts.value?.problems.some((problem) => problem.host === id) && <p class="critical-text">{plain(answer.error)}</p>}
      {hosts.value && !answer && hostError.value ? (
        <p>{texts.missing.host(plain(id))} <a href={toHosts()}>{texts.missing.back}</a></p>
      ) : (
        <HostBody key={id} id={id} />
      )}
    </>
  )
}
