// The ends of axes.

/** A round number at or above a value, in steps that suit bytes or decimal figures. */
export function roundUp(value: number, binary: boolean): number {
  if (!(value > 0)) return 1
  const base = binary ? 1024 ** Math.floor(Math.log(value) / Math.log(1024)) : 1
  const rest = value / base
  const ten = 10 ** Math.floor(Math.log10(rest))
  // Half of the end is a figure on the axis too: 1.6 MiB would have 819 KiB there.
  const steps = binary && ten === 1 ? [1, 2, 3, 4, 6, 8, 10] : [1, 1.2, 1.6, 2, 3, 4, 5, 6, 8, 10]
  const step = steps.find((factor) => factor * ten >= rest * 0.999)!
  return step * ten * base
}
