// The answers of the API, as far as the page reads them.

export interface Session {
  user: 'admin' | 'guest' | null
  login: boolean
  version: string
  zone: string
}

export interface HostRow {
  id: string
  name: string
  state: 'live' | 'away' | 'waiting'
  away_since: number | null
  error: string | null
  newest_at: number | null
  interval_ms: number | null
  cpu: number | null
  memory_used: number | null
  memory_total: number | null
  disk_used_percent: number | null
  disk_mount: string | null
  net_in: number | null
  net_out: number | null
  load1: number | null
  containers_up: number | null
  containers_down: number | null
  uptime_ms: number | null
  cores: number | null
  spark: (number | null)[] | null
}

export interface Problem {
  id: string
  host: string
  container: string | null
  severity: 'critical' | 'warning'
  text: string
  since_at: number | null
}

export interface HostsAnswer {
  now_at: number
  hosts: HostRow[]
  problems: Problem[]
  /** Why the history is not stored. */
  history_error: string | null
}

export interface HostAnswer {
  row: HostRow
  problems: Problem[]
  snapshot: Snapshot | null
}

export interface History {
  from_at: number
  to_at: number
  step_ms: number
  times: number[]
  series: Record<string, (number | null)[]>
}

export interface HostEvent {
  at: number
  container: string | null
  kind: string
  text: string
  severity: 'info' | 'warning' | 'critical'
}

export type Level = 'error' | 'warn' | 'info' | 'debug'

export interface LogLine {
  id: string
  at: number
  container: string
  stream: 'stdout' | 'stderr' | null
  level: Level | null
  text: string
  cut?: boolean
}

export interface OlderLines {
  lines: LogLine[]
  before: string | number | null
}

// The snapshot, see docs/snapshot.md. Memory of the host is in MiB and space of disks in GiB, all else in bytes.

export interface Snapshot {
  timestamp: string
  system?: System
  containers?: Container[]
  docker_meta?: ContainerMeta[]
  stopped?: Stopped[]
  sources?: Record<string, { status: string; error: string | null; interval_ms?: number } | undefined>
  host?: { hostname: string; os: string; kernel: string; arch: string; cpus: number; virtualization?: string }
  agent?: { version: string; cpu_percent: number; memory_rss: number }
}

export interface System {
  cpu_percent: number[]
  memory_used: number
  memory_total: number
  swap_used?: number
  swap_total?: number
  uptime: number
  load_avg: { '1m': number; '5m': number; '15m': number }
  disks?: Disk[]
  disk_io?: DiskIo[]
  network?: Interface[]
  temperatures?: { device: string; sensor: string; celsius: number; critical?: number }[]
  units?: Unit[]
  failed_units?: { name: string; description: string }[]
  processes?: { total: number; running: number; threads: number; zombie: number }
  top_processes?: TopProcess[]
  top_memory?: TopProcess[]
}

export interface Disk {
  mount: string
  device: string
  type: string
  used?: number
  total?: number
  stuck?: boolean
  error?: string
  readonly?: boolean
}

export interface DiskIo {
  device: string
  read_bytes_per_second: number
  write_bytes_per_second: number
  busy_percent: number
}

export interface Interface {
  name: string
  bytes_recv_per_second?: number
  bytes_sent_per_second?: number
  errors_recv?: number
  errors_sent?: number
  drops_recv?: number
  drops_sent?: number
  speed?: number
  up?: boolean
  kind?: string
  container?: string
}

export interface Unit {
  name: string
  state?: string
  sub_state?: string
  since?: string
  restarts?: number
  cpu_percent?: number
  memory?: number
  tasks?: number
}

export interface TopProcess {
  name: string
  cpu: number
  mem: number
  pid: number
  memory_rss?: number
  threads?: number
  user?: string
  command?: string
  container?: string
}

export interface Container {
  id: string
  name: string
  image: string
  status: string
  cpu_percent?: number
  memory_usage?: number
  memory_limit?: number
  oom_kills?: number
  network?: Record<string, { rx_bytes_per_second?: number; tx_bytes_per_second?: number }>
  pids?: number
  block_io?: { read_bytes_per_second?: number; write_bytes_per_second?: number }
  throttled_percent?: number
  cpu_limit?: number
  health?: string
  health_output?: string
  restart_count?: number
  started_at?: string
  uptime?: number
  compose?: { project: string; service?: string }
}

export interface ContainerMeta {
  id: string
  names: string[]
  image: string
  status: string
  ports: { IP?: string; PrivatePort: number; PublicPort?: number; Type: string }[]
  log_bytes?: number
}

export interface Stopped {
  id: string
  name: string
  image: string
  state: string
  exit_code?: number
  oom_killed?: boolean
  started_at?: string
  finished_at?: string
  restart_policy?: string
  compose?: { project: string; service?: string }
  health?: string
  health_output?: string
  error?: string
}
