// One container: facts, charts with its limits, events, and its log.
import type { ComponentChildren } from 'preact'
import { bare, bytesText, parsed, plain, span, time } from '../format'
import { useEvents, useHistory } from '../history'
import { Log } from '../log/log'
import { Chart, Moment, type Line } from '../parts/chart'
import { Mark } from '../parts/figures'
import { Problems } from '../parts/problems'
import { host, hosts, isPhone, now } from '../store'
import { texts } from '../texts'
import type { Container as Running, ContainerMeta, Stopped } from '../types'
import { Age, isStale } from './hosts'
import { Events, Facts, stoppedState } from './host'

const c = texts.chart

function ports(meta: ContainerMeta | undefined): string {
  const published = (meta?.ports ?? []).filter((port) => port.PublicPort !== undefined)
  const all = new Set(published.map((port) => `${port.PublicPort}→${port.PrivatePort}${port.Type === 'tcp' ? '' : `/${port.Type}`}`))
  return [...all].join(', ')
}

function RunningFacts({ container, meta, state }: { container: Running; meta: ContainerMeta | undefined; state: ComponentChildren }) {
  const started = parsed(container.started_at)
  const published = ports(meta)
  const limits = container.cpu_limit !== undefined && texts.facts.cores(container.cpu_limit)
  return (
    <Facts
      first={state}
      parts={[
        plain(container.image),
        container.uptime !== undefined && texts.facts.up(span(container.uptime * 1000)),
        started !== null && `${texts.facts.since} ${time(started, false)}`,
        container.restart_count !== undefined && texts.facts.restarts(container.restart_count),
        published && `${texts.facts.ports} ${published}`,
        container.compose && `${texts.facts.project} ${plain(container.compose.project)}`,
        limits && texts.facts.cpuLimit(limits),
        meta?.log_bytes !== undefined && texts.facts.logSize(bytesText(meta.log_bytes)),
      ]}
    />
  )
}

function StoppedFacts({ container, state }: { container: Stopped; state: ComponentChildren }) {
  const finished = parsed(container.finished_at)
  return (
    <>
      <Facts
        first={state}
        parts={[
          plain(container.image),
          finished !== null && `${texts.facts.finished} ${time(finished)} (${texts.table.stoppedAgo(span(now.value - finished))})`,
          container.restart_policy && texts.facts.policy(plain(container.restart_policy)),
          container.compose && `${texts.facts.project} ${plain(container.compose.project)}`,
        ]}
      />
      {container.error && <p class="critical-text">{plain(container.error)}</p>}
    </>
  )
}

/** What the failed health check has printed. */
function HealthOutput({ container }: { container: Running | Stopped }) {
  if (!container.health_output) return null
  return (
    <div class="check-output">
      <span class="dim">{texts.facts.healthCheck}</span>
      <pre tabIndex={0}>{plain(container.health_output)}</pre>
    </div>
  )
}

export function Container({ id, name }: { id: string; name: string }) {
  const answer = host.value?.row.id === id ? host.value : null
  const snapshot = answer?.snapshot ?? null
  const running = snapshot?.containers?.find((container) => bare(container.name) === name)
  const stopped = running ? undefined : snapshot?.stopped?.find((container) => bare(container.name) === name)
  const meta = running && snapshot?.docker_meta?.find((other) => other.id === running.id)
  const row = answer?.row ?? hosts.value?.hosts.find((other) => other.id === id)
  const series = (kind: string) => `container:${name}:${kind}`
  const line = (kind: string, text: string, colour: number, fill = false): Line => ({ series: series(kind), name: text, colour, fill })
  const data = useHistory(id, ['cpu', 'memory', 'net.in', 'net.out', 'io.read', 'io.write', 'throttled'].map(series))
  const events = useEvents(id, name)
  const problems = (answer?.problems ?? []).filter((problem) => problem.container !== null && bare(problem.container) === name)
  const throttled = data?.series[series('throttled')]?.some((value) => value !== null && value > 0)
  const memoryTotal = (snapshot?.system?.memory_total ?? 0) * 1024 ** 2
  // The engine reports the host's memory as the limit of a container without one.
  const memoryLimit = running?.memory_limit && running.memory_limit < memoryTotal * 0.999 ? running.memory_limit : null
  const cpuLimit = running?.cpu_limit ? running.cpu_limit * 100 : null
  const level = running?.health === 'unhealthy' || stopped?.oom_killed ? 'critical' : running?.health === 'starting' || stopped?.exit_code || stopped?.error ? 'warning' : ''
  const state = running ? [plain(running.status), running.health && plain(running.health)].filter(Boolean).join(', ') : stopped ? stoppedState(stopped) : ''
  const shownState = <span class={`${level ? `${level}-text` : 'state'}`}><Mark level={level} />{state}</span>
  const nothing = data !== null && Object.values(data.series).every((values) => values.every((value) => value === null))
  const log = <Log key={`${id} ${name}`} sources={[{ host: id, container: name }]} whole={stopped !== undefined} />
  // On a phone the last lines come first: they are what somebody who was woken looks for.
  const phone = isPhone.value
  return (
    <div class={row && isStale(row) ? 'stale' : ''}>
      {row && isStale(row) && <p><Age row={row} /></p>}
      <Problems problems={problems} withHost={false} />
      {running && <RunningFacts container={running} meta={meta} state={shownState} />}
      {stopped && <StoppedFacts container={stopped} state={shownState} />}
      {(running ?? stopped) && <HealthOutput container={(running ?? stopped)!} />}
      {snapshot && !running && !stopped && <p class="quiet">{texts.missing.container(plain(name))}</p>}
      {phone && log}
      {nothing ? <p class="quiet">{c.noData}</p> : <><Moment events={events} data={data} />
      <div class="charts">
        <Chart title={c.cpu} unit="percent" lines={[line('cpu', c.used, 1, true)]} data={data} limit={cpuLimit === null ? null : { value: cpuLimit, name: c.limit }} events={events} />
        <Chart title={c.memory} unit="bytes" lines={[line('memory', c.used, 1, true)]} data={data} limit={memoryLimit === null ? null : { value: memoryLimit, name: c.limit }} events={events} />
        <Chart title={c.network} unit="rate" lines={[line('net.in', c.received, 1), line('net.out', c.sent, 2)]} data={data} events={events} />
        <Chart title={c.disk} unit="rate" lines={[line('io.read', c.read, 1), line('io.write', c.write, 2)]} data={data} events={events} />
        {throttled && <Chart title={c.throttled} unit="percent" lines={[line('throttled', c.share, 1)]} data={data} most={100} events={events} />}
        <Events id={id} events={events} withContainer={false} />
      </div></>}
      {!phone && log}
    </div>
  )
}
