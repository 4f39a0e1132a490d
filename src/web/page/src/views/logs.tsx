// The lines of several containers together. The address names them: of=HOST for all containers of a host, of=HOST/CONTAINER for one.
import { useEffect, useState } from 'preact/hooks'
import { get } from '../api'
import { bare, plain } from '../format'
import { Log, type Source } from '../log/log'
import { params, toLogs, go } from '../route'
import { hosts, hostNames } from '../store'
import { texts } from '../texts'
import type { HostAnswer } from '../types'

// A browser opens at most six connections to a server with HTTP/1.1, and each host needs one.
const MOST_HOSTS = 4

/** The containers of hosts, read when they are needed. */
function useContainers(ids: string[]): Map<string, string[]> {
  const [known, setKnown] = useState(new Map<string, string[]>())
  const key = ids.join(' ')
  useEffect(() => {
    const control = new AbortController()
    for (const id of ids) {
      if (known.has(id)) continue
      get<HostAnswer>(`/hosts/${encodeURIComponent(id)}`, control.signal).then((answer) => {
        const names = [...(answer.snapshot?.containers ?? []), ...(answer.snapshot?.stopped ?? [])].map((container) => bare(container.name))
        setKnown((before) => new Map(before).set(id, names))
      }, () => undefined)
    }
    return () => control.abort()
  }, [key])
  return known
}

export function Logs() {
  const all = hosts.value?.hosts ?? []
  const chosen = params.value.getAll('of')
  // With one host there is nothing to choose first.
  const of = chosen.length ? chosen : all.length === 1 ? [all[0]!.id] : []
  const hostOf = (name: string) => (name.includes('/') ? name.slice(0, name.indexOf('/')) : name)
  const [open, setOpen] = useState<string[]>([])
  const wholeHosts = of.filter((name) => !name.includes('/'))
  const containers = useContainers([...new Set([...wholeHosts, ...of.map(hostOf), ...open])])
  const sources: Source[] = []
  const used = new Set<string>()
  for (const name of of) {
    const host = hostOf(name)
    if (!used.has(host) && used.size >= MOST_HOSTS) continue
    used.add(host)
    const names = name.includes('/') ? [name.slice(host.length + 1)] : (containers.get(host) ?? [])
    for (const container of names) if (!sources.some((source) => source.host === host && source.container === container)) sources.push({ host, container })
  }
  const tooMany = new Set(of.map(hostOf)).size > MOST_HOSTS
  const toggle = (name: string, on: boolean) => {
    const host = hostOf(name)
    let next = of.filter((other) => other !== name)
    if (on) next.push(name)
    else if (name.includes('/') && of.includes(host)) {
      next = next.filter((other) => other !== host).concat((containers.get(host) ?? []).map((other) => `${host}/${other}`).filter((other) => other !== name))
    }
    if (on && !name.includes('/')) next = next.filter((other) => other === name || hostOf(other) !== host)
    go(toLogs(next))
  }
  return (
    <div class="logs-view">
      <div class="head">
        <details class="picker">
          <summary>
            {sources.length
              ? [...new Set(sources.map((source) => source.host))].map((host) => hostNames.value.get(host) ?? plain(host)).join(', ')
              : texts.log.none}
            {sources.length > 0 && <span class="dim"> {texts.log.chosen(sources.length)}</span>}
          </summary>
          <div class="picker-body">
            {all.map((row) => (
              <details key={row.id} open={used.has(row.id) || open.includes(row.id)} onToggle={(event) => {
                if (event.currentTarget.open && !open.includes(row.id)) setOpen([...open, row.id])
              }}>
                <summary>{plain(row.name)}</summary>
                <label class="check"><input type="checkbox" checked={of.includes(row.id)} onChange={(event) => toggle(row.id, event.currentTarget.checked)} />{texts.log.allOf(plain(row.name))}</label>
                {(containers.get(row.id) ?? []).map((container) => (
                  <label key={container} class="check">
                    <input type="checkbox" checked={of.includes(row.id) || of.includes(`${row.id}/${container}`)} onChange={(event) => toggle(`${row.id}/${container}`, event.currentTarget.checked)} />
                    {plain(container)}
                  </label>
                ))}
              </details>
            ))}
          </div>
        </details>
        {tooMany && <span class="warning-text">{texts.log.tooMany(MOST_HOSTS)}</span>}
      </div>
      {sources.length ? <Log key={sources.map((source) => `${source.host}/${source.container}`).join(' ')} sources={sources} tall /> : (
        <>
          <p class="quiet">{texts.log.choose}</p>
          <ul class="choose">
            {all.map((row) => <li key={row.id}><a href={toLogs([row.id])} data-row>{texts.log.allOf(plain(row.name))}</a></li>)}
          </ul>
        </>
      )}
    </div>
  )
}
