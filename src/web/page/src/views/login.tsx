import { useEffect, useRef, useState } from 'preact/hooks'
import { ApiError, post } from '../api'
import { readSession } from '../store'
import { expired } from '../session'
import { texts } from '../texts'

export function Login() {
  const [error, setError] = useState('')
  const [busy, setBusy] = useState(false)
  const field = useRef<HTMLInputElement>(null)
  useEffect(() => field.current?.focus(), [])
  const submit = async (event: Event) => {
    event.preventDefault()
    if (busy) return
    setBusy(true)
    setError('')
    try {
      await post('/login', { password: field.current!.value })
      expired.value = false
      await readSession()
    } catch (failure) {
      const { status, retryAfter, message } = failure as ApiError
      setError(status === 401 ? texts.login.wrong : status === 429 && retryAfter ? texts.login.tooMany(retryAfter) : message)
      field.current?.select()
    }
    setBusy(false)
  }
  return (
    <main id="content" class="login">
      <form onSubmit={submit}>
        <h1>{texts.title}</h1>
        {expired.value && <p role="status">{texts.login.expired}</p>}
        {/* Password managers want a name. */}
        <input class="hidden" type="text" name="username" autocomplete="username" value="admin" readOnly tabIndex={-1} aria-hidden="true" />
        <label for="password">{texts.login.password}</label>
        <input id="password" ref={field} type="password" name="password" autocomplete="current-password" required aria-invalid={error !== ''} aria-describedby="login-error" />
        <p id="login-error" class="critical-text" role="alert">{error}</p>
        <button type="submit" class="primary" aria-disabled={busy}>{texts.login.submit}</button>
      </form>
    </main>
  )
}
