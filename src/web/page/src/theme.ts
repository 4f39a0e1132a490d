// Dark, light, or as the system says. The choice stays in this browser.
import { signal } from '@preact/signals'

export type Theme = 'auto' | 'light' | 'dark'
const THEMES: Theme[] = ['auto', 'light', 'dark']
const KEY = 'theme'

function stored(): Theme {
  try {
    const value = localStorage.getItem(KEY) as Theme
    return THEMES.includes(value) ? value : 'auto'
  } catch {
    return 'auto'
  }
}

export const theme = signal<Theme>(stored())
/** Changes with each change of colours; charts read their colours again then. */
export const palette = signal(0)

function show() {
  if (theme.value === 'auto') delete document.documentElement.dataset.theme
  else document.documentElement.dataset.theme = theme.value
  palette.value += 1
}

export function nextTheme() {
  theme.value = THEMES[(THEMES.indexOf(theme.value) + 1) % THEMES.length]!
  try {
    localStorage.setItem(KEY, theme.value)
  } catch {
    // A browser without storage keeps the choice until the page is closed.
  }
  show()
}

export function startTheme() {
  show()
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', show)
}

export const colour = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()
