// The problems, each as one sentence with its age and its links. They stand on top of every view.
import { useState } from 'preact/hooks'
import { iso, plain, span } from '../format'
import { hostNames, now } from '../store'
import { toContainer, toHost, toLogs } from '../route'
import { texts } from '../texts'
import type { Problem } from '../types'
import { Mark } from './figures'

const FIRST = 6

export function Problems({ problems, withHost }: { problems: Problem[]; withHost: boolean }) {
  const [all, setAll] = useState(false)
  if (!problems.length) return null
  const shown = all ? problems : problems.slice(0, FIRST)
  return (
    <section aria-label={texts.problems.heading}>
      <ul class="problems">
        {shown.map((problem) => {
          const where = problem.container ? toContainer(problem.host, problem.container) : toHost(problem.host)
          const log = toLogs([problem.container ? `${problem.host}/${problem.container}` : problem.host])
          return (
            <li key={problem.id} class={problem.severity} data-log={log}>
              <Mark level={problem.severity} />
              <span class="hidden">{texts.problems[problem.severity]}: </span>
              <a href={where} data-row>{plain(problem.text)}</a>
              {withHost && <> {texts.problems.on} {hostNames.value.get(problem.host) ?? plain(problem.host)}</>}
              {problem.since_at !== null && (
                <time class="dim" dateTime={iso(problem.since_at)} title={iso(problem.since_at)}> {texts.problems.since(span(now.value - problem.since_at))}</time>
              )}
              {problem.container && <a class="aside" href={log}>{texts.problems.log}</a>}
            </li>
          )
        })}
      </ul>
      {problems.length > FIRST && (
        <button type="button" class="link" onClick={() => setAll(!all)}>
          {all ? texts.problems.fewer : texts.problems.more(problems.length - FIRST)}
        </button>
      )}
    </section>
  )
}
