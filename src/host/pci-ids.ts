/**
 * Names of vendors and devices out of the system's `pci.ids` file, where there is one.
 *
 * Source: the file's own head comment (vendor lines, device lines behind one tab, subsystem lines
 * behind two; classes follow from the first line that begins with `C `).
 */
import { readFileSync } from "node:fs";

/** What names a function by its vendor and device id; null where the file does not know it. */
export type PciNames = (vendor: number, device: number) => string | null;

const FILES = [
  "/usr/share/misc/pci.ids",
  "/usr/share/hwdata/pci.ids",
  "/usr/share/pci.ids",
  "/var/lib/pciutils/pci.ids",
];
const FILE_BYTES_MAX = 16 << 20;

/** Names nothing. */
export const NO_NAMES: PciNames = () => null;

/** The names that this system has installed. */
export function installedNames(): PciNames {
  for (const file of FILES) {
    try {
      return namesIn(readFileSync(file, "latin1"));
    } catch {
      // Not installed there.
    }
  }
  return NO_NAMES;
}

/** Names in the text of a `pci.ids` file; a vendor's part is read when it is first asked for. */
export function namesIn(file: string): PciNames {
  const text = file.slice(0, FILE_BYTES_MAX);
  const vendors = new Map<number, Vendor | null>();
  return (vendor, device) => {
    let found = vendors.get(vendor);
    if (found === undefined) {
      found = findVendor(text, vendor);
      vendors.set(vendor, found);
    }
    if (found === null) return null;
    const name = found.devices.get(device);
    return name === undefined ? found.name : `${found.name} ${name}`;
  };
}

interface Vendor {
  readonly name: string;
  readonly devices: ReadonlyMap<number, string>;
}

function findVendor(text: string, vendor: number): Vendor | null {
  const head = `\n${vendor.toString(16).padStart(4, "0")}  `;
  const start = text.startsWith(head.slice(1)) ? 0 : text.indexOf(head) + 1;
  if (start === 0 && !text.startsWith(head.slice(1))) return null;
  const devices = new Map<number, string>();
  const nameEnd = endOfLine(text, start);
  let at = nameEnd + 1;
  while (at < text.length) {
    const end = endOfLine(text, at);
    const line = text.slice(at, end);
    at = end + 1;
    if (line.startsWith("\t\t") || line === "" || line.startsWith("#")) continue;
    const match = /^\t([0-9a-f]{4}) {2}(.{1,200})/.exec(line);
    if (match === null) break;
    devices.set(Number.parseInt(match[1]!, 16), match[2]!.trim());
  }
  return { name: shortVendor(text.slice(start + 6, nameEnd).trim()), devices };
}

function endOfLine(text: string, at: number): number {
  const end = text.indexOf("\n", at);
  return end < 0 ? text.length : end;
}

/** A vendor's name without its legal form: `Intel Corporation` is `Intel`. */
function shortVendor(name: string): string {
  const short = name
    .replace(
      /\s*[,.]?\s*\b(Corporation|Corp\.?|Inc\.?|Ltd\.?|Co\.?|LLC|GmbH|Limited)(?=[\s,.]|$)/g,
      "",
    )
    .replace(/[\s,.]+$/, "")
    .trim();
  return short === "" ? name : short;
}
