/** Names of PCI nodes. */
import { hex } from "../../units.ts";

/** The unit address of a PCI function: device, and the function when it is not 0. */
export function devfnText(devfn: number): string {
  const device = hex(devfn >> 3).slice(2);
  return devfn % 8 === 0 ? device : `${device},${devfn % 8}`;
}
