// The page of `system-agent web`.
import 'uplot/dist/uPlot.min.css'
import './style.css'
import { render } from 'preact'
import { useEffect, useRef } from 'preact/hooks'
import { effect } from '@preact/signals'
import { post } from './api'
import { plain, stamp } from './format'
import { helpOpen, listenToKeys } from './keys'
import { listenToAddress, params, range, RANGES, route, setParams, toHost, toHosts, toLogs } from './route'
import { session } from './session'
import { announcement, failed, hostNames, hosts, listenToServer, lostAt, readSession } from './store'
import { nextTheme, startTheme, theme } from './theme'
import { time } from './format'
import { texts } from './texts'
import { Container } from './views/container'
import { Host } from './views/host'
import { Freshness, Hosts } from './views/hosts'
import { Login } from './views/login'
import { Logs } from './views/logs'

function Help() {
  const dialog = useRef<HTMLDialogElement>(null)
  const open = helpOpen.value
  useEffect(() => {
    if (open) dialog.current?.showModal()
    else dialog.current?.close()
  }, [open])
  return (
    <dialog ref={dialog} aria-labelledby="help-title" onClose={() => (helpOpen.value = false)}>
      <h2 id="help-title">{texts.helpTitle}</h2>
      <dl>
        {texts.keys.map(([key, what]) => (
          <div key={key}>
            <dt><kbd>{key}</kbd></dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <button type="button" onClick={() => (helpOpen.value = false)}>{texts.close}</button>
    </dialog>
  )
}

/** Where the page is. The last part is its heading. */
function Crumbs() {
  const { place } = route.value
  const name = (id: string) => hostNames.value.get(id) ?? plain(id)
  const step = <span aria-hidden="true">/</span>
  if (place.view === 'hosts' || place.view === 'missing') return <h1 class="crumbs">{texts.title}</h1>
  return (
    <div class="crumbs">
      <a href={toHosts()}>{texts.title}</a>
      {step}
      {place.view === 'container' && <><a href={toHost(place.host)}>{name(place.host)}</a>{step}</>}
      <h1>{place.view === 'logs' ? texts.logs : place.view === 'host' ? name(place.host) : plain(place.container)}</h1>
    </div>
  )
}

function Filter() {
  const { place } = route.value
  if (place.view === 'container' || place.view === 'logs') return null
  return (
    <input
      type="search"
      data-find
      class="filter"
      placeholder={`/ ${texts.filter}`}
      aria-label={texts.filterLabel}
      value={params.value.get('q') ?? ''}
      onInput={(event) => setParams({ q: event.currentTarget.value })}
      onKeyDown={(event) => {
        if (event.key !== 'Enter') return
        document.querySelector<HTMLAnchorElement>('tbody a[data-row]')?.focus()
        event.preventDefault()
      }}
    />
  )
}

function RangeChoice() {
  const { name, from, to } = range.value
  const { place } = route.value
  // A table of hosts has no charts.
  if (place.view === 'logs' || place.view === 'missing' || (place.view === 'hosts' && hosts.value?.hosts.length !== 1)) return null
  return (
    <label class="choice range">
      <span>{texts.range}</span>
      <select value={name ?? 'chosen'} onChange={(event) => setParams({ range: event.currentTarget.value, from: null, to: null }, true)}>
        {!name && <option value="chosen">{texts.rangeChosen(time(from, false), time(to, false))}</option>}
        {RANGES.map(([value]) => <option key={value} value={value}>{texts.ranges[value]}</option>)}
      </select>
    </label>
  )
}

function Content() {
  const { place } = route.value
  switch (place.view) {
    case 'hosts': return <Hosts />
    case 'host': return <Host key={place.host} id={place.host} />
    case 'container': return <Container key={`${place.host} ${place.container}`} id={place.host} name={place.container} />
    case 'logs': return <Logs />
    case 'missing': return <p>{texts.missing.page} <a href={toHosts()}>{texts.missing.back}</a></p>
  }
}

function App() {
  const known = session.value
  if (failed.value && !known) return <main id="content" class="login"><p role="alert">{failed.value}</p></main>
  if (!known) return null
  if (!known.user) return <Login />
  const { view } = route.value.place
  return (
    <>
      <a class="skip" href="#content" onClick={(event) => { event.preventDefault(); document.getElementById('content')?.focus() }}>{texts.skip}</a>
      <header>
        <Crumbs />
        {view === 'hosts' && <Freshness />}
        <span class="grow" />
        {view !== 'logs' && <a class="to-logs" href={'host' in route.value.place ? toLogs([route.value.place.host]) : toLogs([])}>{texts.logs}</a>}
        <Filter />
        <RangeChoice />
      </header>
      {lostAt.value !== null && <p class="banner" role="status">▲ {texts.state.lost(stamp(lostAt.value).slice(0, 8))}</p>}
      {hosts.value?.history_error && <p class="banner" role="status">▲ {texts.state.historyError(plain(hosts.value.history_error))}</p>}
      <main id="content" tabIndex={-1}>
        <Content />
      </main>
      <footer>
        <span>{texts.version(plain(known.version))}</span>
        <span>{texts.zone(Intl.DateTimeFormat().resolvedOptions().timeZone)}</span>
        <span class="grow" />
        <button type="button" class="link" onClick={() => (helpOpen.value = true)}>{texts.help} <kbd>?</kbd></button>
        <button type="button" class="link" onClick={nextTheme}>{texts.theme}: {texts.themes[theme.value]}</button>
        {known.login && (
          <button type="button" class="link" onClick={() => {
            // A guest has no session to end; the form is what he wants.
            if (known.user === 'guest') session.value = { ...known, user: null }
            else void post('/logout').then(readSession, () => undefined)
          }}>{known.user === 'guest' ? texts.logIn : texts.logOut}</button>
        )}
      </footer>
      <div class="hidden" role="status" aria-live="polite">{announcement.value}</div>
      <Help />
    </>
  )
}

startTheme()
listenToAddress()
listenToKeys()
listenToServer()
effect(() => {
  const { place } = route.value
  const name = place.view === 'container' ? plain(place.container) : place.view === 'host' ? (hostNames.value.get(place.host) ?? plain(place.host)) : place.view === 'logs' ? texts.log.title : ''
  document.title = name ? `${name} · ${texts.title}` : texts.title
})
void readSession()
render(<App />, document.body)
