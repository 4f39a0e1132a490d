// Older lines of several containers, page by page, merged by time.
import { get, query } from '../api'
import type { LogLine, OlderLines } from '../types'
import { rowOf, type Row } from './text'

const PAGE = 300

interface Well {
  host: string
  container: string
  before: string | number
  /** Lines that were read and not yet given out, the newest last. */
  lines: LogLine[]
  dry: boolean
}

export class Older {
  private wells: Well[]

  /** Begins before a moment of each container. */
  constructor(sources: { host: string; container: string }[], before: (host: string, container: string) => number, private search: string | null) {
    this.wells = sources.map((source) => ({ ...source, before: before(source.host, source.container), lines: [], dry: false }))
  }

  get done() {
    return this.wells.every((well) => well.dry && !well.lines.length)
  }

  private async fill(well: Well, signal: AbortSignal) {
    const page = await get<OlderLines>(
      `/hosts/${encodeURIComponent(well.host)}/logs/older${query({ container: well.container, before: well.before, search: this.search, limit: PAGE })}`,
      signal,
    )
    well.lines = page.lines.concat(well.lines)
    if (page.before === null || page.before === well.before) well.dry = true
    else well.before = page.before
  }

  /** The next rows, the newest last. A container without lines at hand is read before an older line of another one is given out. */
  async next(signal: AbortSignal): Promise<Row[]> {
    const rows: Row[] = []
    let pages = 0
    while (rows.length < PAGE) {
      const thirsty = this.wells.filter((well) => !well.lines.length && !well.dry)
      if (thirsty.length) {
        // A search can need many pages without a hit; what was found until then is shown first.
        if (rows.length && pages >= 2) break
        if (pages >= 8) break
        pages += 1
        await Promise.all(thirsty.map((well) => this.fill(well, signal)))
        continue
      }
      let newest: Well | null = null
      for (const well of this.wells) if (well.lines.length && (!newest || well.lines.at(-1)!.at > newest.lines.at(-1)!.at)) newest = well
      if (!newest) break
      rows.push(rowOf(newest.lines.pop()!, newest.host))
    }
    return rows.reverse()
  }
}
