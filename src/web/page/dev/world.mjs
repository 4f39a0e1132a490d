// The hosts that the development server shows. They begin with a recorded snapshot (tests/fixtures/snapshot.json); the figures
// that change are functions of the time, so that the past is the same whenever it is asked for.
import { readFileSync } from 'node:fs'

const recorded = JSON.parse(readFileSync(new URL('../../../../tests/fixtures/snapshot.json', import.meta.url), 'utf8'))

const MIB = 1024 ** 2
const GIB = 1024 ** 3

export function hash(text) {
  let value = 2166136261
  for (const character of text) value = Math.imul(value ^ character.codePointAt(0), 16777619)
  return value >>> 0
}

/** A repeatable number from 0 to 1. */
function random(seed, index) {
  let value = Math.imul(seed ^ Math.imul(index | 0, 0x9e3779b1), 0x85ebca6b)
  value ^= value >>> 13
  value = Math.imul(value, 0xc2b2ae35)
  return ((value ^ (value >>> 16)) >>> 0) / 2 ** 32
}

/** Smooth noise from 0 to 1 that changes over `period` ms. */
function noise(seed, at, period) {
  const place = at / period
  const index = Math.floor(place)
  const part = place - index
  const smooth = part * part * (3 - 2 * part)
  return random(seed, index) * (1 - smooth) + random(seed, index + 1) * smooth
}

const wave = (name, at) => {
  const seed = hash(name)
  return 0.45 * noise(seed, at, 1_800_000) + 0.3 * noise(seed + 1, at, 240_000) + 0.15 * noise(seed + 2, at, 40_000) + 0.1 * noise(seed + 3, at, 9_000)
}

const SHOP = ['web', 'api', 'worker', 'postgres', 'redis', 'nginx', 'mailer', 'search']
const OTHERS = ['grafana', 'prometheus', 'loki', 'gitea', 'registry', 'minio', 'keycloak', 'vault', 'traefik', 'rabbitmq', 'clickhouse', 'imgproxy']

export function container(name, extra = {}) {
  const limited = hash(name) % 3 !== 0
  return {
    name,
    image: `${name === 'postgres' ? 'postgres:17.2-bookworm' : name === 'redis' ? 'redis:7.4-alpine' : `registry.example.net/shop/${name}:2026.11.${(hash(name) % 27) + 1}`}`,
    memory_limit: limited ? (256 << hash(name) % 4) * MIB : null,
    cpu_limit: limited && hash(name) % 2 ? 0.5 + (hash(name) % 4) * 0.5 : null,
    busy: 0.05 + (hash(name) % 60) / 60,
    started: 3 * 86_400_000 + (hash(name) % 40) * 3_600_000,
    ...extra,
  }
}

export function makeHost(name, options = {}) {
  return {
    id: `${name}:9000`,
    name,
    cores: 4,
    memory: 16 * GIB,
    load: 0.1 + (hash(name) % 50) / 70,
    // A number keeps the CPU use there, whatever the time is.
    cpu: null,
    booted: (3 + (hash(name) % 60)) * 86_400_000,
    interval: 5000,
    disks: [['/', '/dev/vda1', 'ext4', 0.3 + (hash(name) % 30) / 100, 80], ['/var', '/dev/vdb1', 'xfs', 0.2 + (hash(name) % 45) / 100, 250]],
    containers: SHOP.slice(0, 2 + (hash(name) % 6)).map((one) => container(one)),
    stopped: [],
    problems: [],
    events: [],
    temperature: hash(name) % 2 === 0,
    since: null,
    away: null,
    state: null,
    error: null,
    ...options,
  }
}

export function fleet(now) {
  const minutes = (n) => now - n * 60_000
  const alpha = makeHost('alpha', {
    cores: 8, memory: 32 * GIB, booted: 12 * 86_400_000, temperature: true, load: 0.4,
    containers: [...SHOP.map((one) => container(one)), ...OTHERS.map((one) => container(one)), container('backup', { health: 'starting', started: 40_000 })],
    stopped: [
      { name: 'migrate', state: 'exited', exit_code: 0, oom_killed: false, finished: minutes(190), restart_policy: 'no' },
      { name: 'importer', state: 'exited', exit_code: 1, oom_killed: false, finished: minutes(44), restart_policy: 'on-failure' },
    ],
  })
  Object.assign(alpha.containers.find((one) => one.name === 'web'), { restarts: 3, started: 4 * 60_000 - 3000, memory_limit: 512 * MIB, leak: true, health: 'healthy' })
  Object.assign(alpha.containers.find((one) => one.name === 'search'), { health: 'unhealthy', health_output: 'curl: (7) Failed to connect to 127.0.0.1 port 7700 after 0 ms: Connection refused' })
  alpha.problems = [
    { container: 'web', severity: 'critical', text: 'web was OOM-killed (exit 137), third time today', since_at: minutes(4) },
    { container: 'search', severity: 'warning', text: 'search is unhealthy', since_at: minutes(21) },
  ]
  alpha.events = [
    { at: minutes(51), container: 'web', kind: 'oom', text: 'web was OOM-killed', severity: 'critical' },
    { at: minutes(51) + 900, container: 'web', kind: 'die', text: 'web exited with code 137', severity: 'warning' },
    { at: minutes(51) + 2100, container: 'web', kind: 'start', text: 'web started', severity: 'info' },
    { at: minutes(44), container: 'importer', kind: 'die', text: 'importer exited with code 1', severity: 'warning' },
    { at: minutes(21), container: 'search', kind: 'health_status', text: 'search became unhealthy', severity: 'warning' },
    { at: minutes(4), container: 'web', kind: 'oom', text: 'web was OOM-killed', severity: 'critical' },
    { at: minutes(4) + 900, container: 'web', kind: 'die', text: 'web exited with code 137', severity: 'warning' },
    { at: minutes(4) + 3000, container: 'web', kind: 'start', text: 'web started', severity: 'info' },
  ]
  const gamma = makeHost('gamma', { disks: [['/', '/dev/sda2', 'ext4', 0.41, 50], ['/var', '/dev/sdb1', 'xfs', 0.921, 500]] })
  gamma.problems = [{ container: null, severity: 'warning', text: '/var is 92 % full, full in about 3 h (+1.4 GiB/h)', since_at: minutes(95) }]
  const delta = makeHost('delta', { away: minutes(18), error: 'connection refused (10.0.4.7:9000)' })
  delta.problems = [{ container: null, severity: 'critical', text: 'no answer from delta: connection refused', since_at: minutes(18) }]
  const rest = ['beta', 'epsilon', 'zeta', 'eta', 'theta', 'iota', 'kappa', 'build-runner-03.internal.example.net', 'lambda', 'mu'].map((name) => makeHost(name))
  rest.push(makeHost('nu', { state: 'waiting' }))
  return [alpha, gamma, delta, ...rest]
}

/** One host that was added a few minutes ago. */
export function first(now) {
  const host = makeHost('laptop', { cores: 2, memory: 8 * GIB, since: now - 7 * 60_000, containers: SHOP.map((one) => container(one)), temperature: true })
  return [host]
}

/** Names and texts that try to be more than text. */
export function hostile(now) {
  const evil = '<img src=x onerror=alert(1)>'
  const host = makeHost(`"><script>alert(1)</script>`, {
    id: 'evil:9000',
    containers: [container(evil), container('\u202Egnp.exe'), container('\u001b[31mred\u001b[0m'), container("a'b\"c&amp;d"), container('web')],
    stopped: [{ name: 'javascript:alert(1)', state: '<b>exited</b>', exit_code: 1, oom_killed: false, finished: now - 5000, restart_policy: 'no', error: '<script>alert(2)</script>' }],
  })
  host.problems = [{ container: evil, severity: 'critical', text: `${evil} was OOM-killed \u001b]0;title\u0007 \u202Etxt`, since_at: now - 60_000 }]
  host.events = [{ at: now - 60_000, container: evil, kind: 'die', text: `${evil} exited with code 1`, severity: 'warning' }]
  return [host]
}

/** The figures of a host at a moment, by the names of the series; null while it was away. */
export function figures(host, at) {
  const values = {}
  if ((host.away && at > host.away) || (host.since && at < host.since) || host.state === 'waiting') return null
  // An outage that is over shows as a gap.
  if (host.gap && at > host.gap[0] && at < host.gap[1]) return null
  const day = 0.7 + 0.3 * Math.sin(at / 86_400_000 * 2 * Math.PI)
  const cpu = host.cpu ?? Math.min(98, 100 * host.load * wave(host.name, at) * day + 1)
  values.cpu = cpu
  values['cpu.user'] = cpu * 0.62
  values['cpu.system'] = cpu * 0.27
  values['cpu.iowait'] = 3 * wave(`${host.name}io`, at)
  values['cpu.steal'] = 0.2 * wave(`${host.name}st`, at)
  values['memory.used'] = host.memory * (0.35 + 0.2 * wave(`${host.name}mem`, at))
  values['memory.cached'] = host.memory * (0.25 + 0.1 * wave(`${host.name}cache`, at))
  values['memory.available'] = host.memory - values['memory.used']
  values['swap.used'] = 0.02 * host.memory * noise(hash(host.name), at, 7_200_000)
  values.load1 = (cpu / 100) * host.cores * 1.1
  const burst = (name, size) => size * (wave(name, at) ** 4 * 8 + 0.02)
  values['disk.read'] = burst(`${host.name}r`, 6 * MIB)
  values['disk.write'] = burst(`${host.name}w`, 9 * MIB)
  values['disk.busy'] = Math.min(100, 40 * wave(`${host.name}w`, at) ** 2)
  values['net.in'] = burst(`${host.name}in`, 4 * MIB)
  values['net.out'] = burst(`${host.name}out`, 2 * MIB)
  values['pressure.cpu'] = Math.min(100, cpu * 0.25)
  values['pressure.memory'] = 0.4 * wave(`${host.name}pm`, at)
  values['pressure.io'] = 6 * wave(`${host.name}pio`, at) ** 2
  if (host.temperature) values.temperature = 41 + cpu * 0.35
  values['containers.up'] = host.containers.length
  values['containers.down'] = host.stopped.length
  for (const [mount, , , used] of host.disks) values[`disk.used:${mount}`] = used * 100
  for (const one of host.containers) Object.assign(values, containerFigures(host, one, at))
  return values
}

export function containerFigures(host, one, at) {
  const name = `container:${one.name}`
  const seed = `${host.name}/${one.name}`
  const limit = one.memory_limit ?? host.memory * 0.06
  let memory = limit * (0.3 + 0.4 * noise(hash(seed), at, 3_000_000))
  if (one.leak) {
    // A leak that ends in a kill every 47 minutes.
    const period = 47 * 60_000
    const killed = host.events.filter((event) => event.kind === 'oom').map((event) => event.at)
    const before = killed.filter((time) => time <= at).at(-1)
    memory = limit * Math.min(1, 0.22 + 0.78 * ((at - (before ?? killed[0] - period)) / period) ** 1.3)
  }
  return {
    [`${name}:cpu`]: 100 * one.busy * wave(`${seed}cpu`, at) * (one.cpu_limit ?? 1),
    [`${name}:memory`]: memory,
    [`${name}:net.in`]: 800 * 1024 * wave(`${seed}in`, at) ** 3,
    [`${name}:net.out`]: 1200 * 1024 * wave(`${seed}out`, at) ** 3,
    [`${name}:io.read`]: 300 * 1024 * wave(`${seed}r`, at) ** 5,
    [`${name}:io.write`]: 900 * 1024 * wave(`${seed}w`, at) ** 4,
    [`${name}:throttled`]: one.cpu_limit ? Math.max(0, 60 * wave(`${seed}cpu`, at) - 28) : 0,
  }
}

const round = (value, digits = 2) => Math.round(value * 10 ** digits) / 10 ** digits

/** The moment of the newest snapshot of a host. */
export function newest(host, now) {
  const last = host.away ?? now
  return last - (last % host.interval)
}

export function row(host, now) {
  const at = newest(host, now)
  const values = host.state === 'waiting' ? null : figures({ ...host, away: null }, at)
  const spark = []
  for (let index = 59; index >= 0; index -= 1) spark.push(round(figures(host, at - index * 30_000)?.cpu ?? NaN))
  const worst = [...host.disks].sort((a, b) => b[3] - a[3])[0]
  return {
    id: host.id, name: host.name,
    state: host.state ?? (host.away ? 'away' : 'live'),
    away_since: host.away, error: host.error,
    newest_at: values ? at : null, interval_ms: values ? host.interval : null,
    cpu: values && round(values.cpu),
    memory_used: values && Math.round(values['memory.used']), memory_total: values && host.memory,
    disk_used_percent: values && round(worst[3] * 100), disk_mount: values && worst[0],
    net_in: values && round(values['net.in']), net_out: values && round(values['net.out']),
    load1: values && round(values.load1),
    containers_up: values && host.containers.length, containers_down: values && host.stopped.length,
    uptime_ms: values && host.booted, cores: values && host.cores,
    spark: values ? spark.map((value) => (Number.isNaN(value) ? null : value)) : [],
  }
}

export function problems(hosts) {
  const weight = { critical: 0, warning: 1 }
  return hosts
    .flatMap((host) => host.problems.map((problem) => ({ id: `${host.id} ${problem.container ?? ''} ${problem.text}`, host: host.id, ...problem })))
    .sort((a, b) => weight[a.severity] - weight[b.severity] || b.since_at - a.since_at)
}

export function snapshot(host, now) {
  if (host.state === 'waiting') return null
  const at = newest(host, now)
  const values = figures({ ...host, away: null, since: null }, at)
  const copy = structuredClone(recorded)
  const { system } = copy
  delete copy.logs
  delete copy.events
  copy.timestamp = new Date(at).toISOString()
  system.cpu_percent = [round(values.cpu)]
  system.memory_total = host.memory / MIB
  system.memory_used = round(values['memory.used'] / MIB)
  system.swap_total = (host.memory / MIB) * 0.25
  system.swap_used = round(values['swap.used'] / MIB)
  system.uptime = Math.round(host.booted / 1000)
  system.load_avg = { '1m': round(values.load1), '5m': round(values.load1 * 0.9), '15m': round(values.load1 * 0.8) }
  system.disks = host.disks.map(([mount, device, type, used, total]) => ({ mount, device, type, used: used * total, total, available: total * (1 - used) }))
  Object.assign(system.disk_io[0], { read_bytes_per_second: values['disk.read'], write_bytes_per_second: values['disk.write'], busy_percent: round(values['disk.busy']) })
  system.network = [
    { ...system.network[0] },
    { ...system.network[0], name: 'eth0', kind: 'physical', speed: 1000, bytes_recv_per_second: values['net.in'], bytes_sent_per_second: values['net.out'] },
    ...host.containers.slice(0, 6).map((one) => ({ ...system.network[0], name: `veth${hash(one.name).toString(16).slice(0, 7)}`, kind: 'veth', container: one.name, bytes_recv_per_second: values[`container:${one.name}:net.out`], bytes_sent_per_second: values[`container:${one.name}:net.in`] })),
  ]
  if (host.temperature) system.temperatures = [{ device: 'coretemp', sensor: 'Package id 0', celsius: round(values.temperature, 1), critical: 100 }]
  const programs = ['dockerd', 'containerd', 'systemd-journald', 'sshd', 'chronyd', 'system-agent']
  const process = (name, index, inside) => ({ name: name.slice(0, 15), cpu: round(inside ? values[`container:${name}:cpu`] * 0.9 : 4 * wave(`${host.name}${name}p`, at)), mem: 1, pid: 400 + (hash(name) % 30000), memory_rss: inside ? Math.round(values[`container:${name}:memory`] * 0.8) : (20 + (hash(name) % 90)) * MIB, threads: 1 + (index % 9), user: inside ? '1000' : 'root', ...(inside ? { container: name } : {}) })
  const all = [...host.containers.slice(0, 9).map((one, index) => process(one.name, index, true)), ...programs.map((name, index) => process(name, index, false))]
  system.top_processes = [...all].sort((a, b) => b.cpu - a.cpu).slice(0, 10)
  system.top_memory = [...all].sort((a, b) => b.memory_rss - a.memory_rss).slice(0, 10)
  system.units = [
    ...(host.name === 'alpha' ? [{ name: 'certbot.service', state: 'failed', sub_state: 'failed', since: new Date(at - 7_900_000).toISOString(), restarts: 0 }] : []),
    ...['docker.service', 'containerd.service', 'ssh.service', 'systemd-journald.service', 'chrony.service', 'cron.service', 'user-1000.slice', 'system-agent.service'].map((name) => ({ name, state: 'active', sub_state: 'running', since: new Date(at - host.booted).toISOString(), restarts: 0, cpu_percent: round(5 * wave(host.name + name, at)), memory: (10 + (hash(name) % 200)) * MIB, tasks: 1 + (hash(name) % 40) })),
  ]
  copy.containers = host.containers.map((one) => ({
    ...recorded.containers[0],
    id: hash(host.name + one.name).toString(16).padStart(12, '0'),
    name: `/${one.name}`, image: one.image, status: 'running',
    cpu_percent: round(values[`container:${one.name}:cpu`]),
    memory_usage: Math.round(values[`container:${one.name}:memory`]),
    memory_limit: one.memory_limit ?? host.memory,
    network: { eth0: { rx_bytes_per_second: values[`container:${one.name}:net.in`], tx_bytes_per_second: values[`container:${one.name}:net.out`] } },
    block_io: { read_bytes_per_second: values[`container:${one.name}:io.read`], write_bytes_per_second: values[`container:${one.name}:io.write`] },
    throttled_percent: values[`container:${one.name}:throttled`],
    cpu_limit: one.cpu_limit ?? undefined, health: one.health, health_output: one.health_output, restart_count: one.restarts ?? 0,
    started_at: new Date(at - one.started).toISOString(), uptime: Math.round(one.started / 1000),
    compose: SHOP.includes(one.name) ? { project: 'shop', service: one.name } : undefined,
  }))
  copy.docker_meta = host.containers.map((one, index) => ({
    ...recorded.docker_meta[0], id: copy.containers[index].id, names: [`/${one.name}`], image: one.image,
    ports: one.name === 'web' ? [{ IP: '0.0.0.0', PrivatePort: 8080, PublicPort: 80, Type: 'tcp' }, { IP: '::', PrivatePort: 8080, PublicPort: 80, Type: 'tcp' }] : [],
    log_bytes: (hash(one.name) % 90) * MIB,
  }))
  copy.stopped = host.stopped.map((one) => ({
    id: hash(one.name).toString(16).padStart(12, '0'), name: `/${one.name}`, image: `registry.example.net/shop/${one.name}:latest`, state: one.state,
    exit_code: one.exit_code, oom_killed: one.oom_killed, started_at: new Date(one.finished - 60_000).toISOString(), finished_at: new Date(one.finished).toISOString(), restart_policy: one.restart_policy, error: one.error,
  }))
  copy.host = { hostname: host.name, os: 'Debian GNU/Linux 13 (trixie)', kernel: '6.12.57+deb13-amd64', arch: 'x86_64', cpus: host.cores, boot_time: Math.round((at - host.booted) / 1000), virtualization: 'kvm' }
  copy.agent = { ...copy.agent, cpu_percent: 0.4, memory_rss: 11 * MIB }
  return copy
}

// Log lines: one every `period` ms for each container, from a few patterns.

const PATHS = ['/api/orders', '/api/orders/81724', '/cart', '/', '/static/app.9f3c.js', '/healthz', '/api/search?q=lamp', '/login']

export function logLine(host, name, number, period) {
  const at = number * period + (hash(`${name}${number}`) % Math.max(1, Math.floor(period * 0.9)))
  const r = (index) => random(hash(host.name + name), number * 7 + index)
  let level = r(0) > 0.985 ? 'error' : r(0) > 0.95 ? 'warn' : r(0) > 0.88 ? 'debug' : 'info'
  const clock = new Date(at).toISOString()
  let text
  const path = PATHS[Math.floor(r(1) * PATHS.length)]
  const ms = Math.round(2 + r(2) ** 6 * 1800)
  switch (hash(name) % 3) {
    case 0:
      text = level === 'error'
        ? JSON.stringify({ time: clock, level, msg: 'payment failed', order: 81000 + (number % 900), err: 'gateway timeout after 30 s', attempt: 3 })
        : JSON.stringify({ time: clock, level, msg: level === 'debug' ? 'cache miss' : `handled ${path}`, status: r(3) > 0.97 ? 502 : 200, ms, client: `10.0.${number % 5}.${number % 250}` })
      break
    case 1:
      text = level === 'error'
        ? `${clock.slice(0, 19)} ERROR worker[${number % 8}] job 77${number % 1000} failed: java.lang.OutOfMemoryError: Java heap space at com.example.shop.Importer.read(Importer.java:214) after ${ms} ms, will retry in 30 s`
        : `${clock.slice(0, 19)} ${level.toUpperCase()} worker[${number % 8}] job 77${number % 1000} done in ${ms} ms`
      break
    default:
      level = r(0) > 0.97 ? 'error' : level === 'error' ? 'warn' : level
      text = `10.0.${number % 5}.${number % 250} - - "GET ${path} HTTP/1.1" ${level === 'error' ? 502 : 200} ${Math.round(r(4) * 30000)} "-" "Mozilla/5.0 (X11; Linux x86_64)" ${ms / 1000}`
  }
  return { id: `${name}-${number}`, at, container: name, stream: level === 'error' ? 'stderr' : 'stdout', level, text }
}

export const HOSTILE_LINES = [
  '<script>alert("log")</script><img src=x onerror="alert(1)">',
  '\u001b[31mred\u001b[0m \u001b]8;;javascript:alert(1)\u0007link\u001b]8;;\u0007 \u001b[2J\u001b[1;1H',
  'user \u202Egnp.exe\u202C has logged in \u2066hidden\u2069 \u200bzero',
  '{"msg":"<b>json</b>","__proto__":{"x":1},"constructor":"<script>alert(3)</script>"}',
  `{"msg":${JSON.stringify('m'.repeat(3000))}}`,
  'x'.repeat(16 * 1024),
  '日本語のログ 🚀 combining e\u0301\u0301\u0301\u0301 ‮reversed',
  '\u0000\u0001\u0007bell\rcarriage',
  '&lt;escaped&gt; &amp; {{template}} ${expression}',
]
