/**
 * virtio-mmio devices on the kernel's command line: `virtio_mmio.device=<size>@<base>:<irq>[:<id>]`.
 *
 * Beside it stands the argument that the thread of November 2019 only names, an IOMMU and its
 * endpoints: `virtio_mmio.iommu=<id>:<endpoint>@<base>`. Linux has no such parameter; the form is a
 * proposal of ours. Source: Linux 7.2 drivers/virtio/virtio_mmio.c: vm_cmdline_set; lib/cmdline.c:
 * memparse; lib/vsprintf.c: vsscanf.
 */
import { Findings, type TableFinding } from "../table-finding.ts";

/** A device as the kernel registers it. */
export interface CommandLineDevice {
  /** Number behind `virtio-mmio.` in its name. */
  readonly id: number;
  readonly base: bigint;
  readonly bytes: bigint;
  readonly interrupt: number;
}

/** The proposed argument: an endpoint of the IOMMU with that id. */
export interface CommandLineEndpoint {
  readonly iommu: number;
  readonly endpoint: number;
  readonly base: bigint;
}

/** What a command line says of virtio-mmio. */
export interface CommandLineReading {
  readonly devices: readonly CommandLineDevice[];
  readonly endpoints: readonly CommandLineEndpoint[];
  readonly findings: readonly TableFinding[];
}

const SOURCE = "drivers/virtio/virtio_mmio.c: vm_cmdline_set";
/** Longest command line that is read; Linux's own limit is 4096 and less. */
export const COMMAND_LINE_MAX = 65_536;
const TWO_64 = 1n << 64n;

/** Reads a command line. Never throws. */
export function readCommandLine(text: string): CommandLineReading {
  const findings = new Findings("command line");
  const devices: CommandLineDevice[] = [];
  const endpoints: CommandLineEndpoint[] = [];
  let next = 0;
  for (const { word, at } of wordsOf(text.slice(0, COMMAND_LINE_MAX))) {
    const equals = word.indexOf("=");
    // The kernel takes dashes in names for underscores.
    const name = word.slice(0, Math.max(0, equals)).replaceAll("-", "_");
    const value = word.slice(equals + 1);
    if (name === "virtio_mmio.device") {
      const parsed = parseDevice(value, next);
      next = parsed.next;
      if (parsed.device !== null) devices.push(parsed.device);
      else {
        findings.add({
          code: "command-line/device",
          severity: "error",
          at,
          message: `\`${value}\` is not <size>@<base>:<irq>[:<id>]`,
          effect: `Linux logs \`device: \`${value}' invalid for parameter\`; no device appears`,
          source: SOURCE,
        });
      }
    } else if (name === "virtio_mmio.iommu") {
      const endpoint = parseEndpoint(value);
      if (endpoint !== null) endpoints.push(endpoint);
      findings.add({
        code: "command-line/iommu-argument",
        severity: "error",
        at,
        message:
          endpoint === null ? `\`${value}\` is no endpoint` : "An IOMMU's endpoint (proposal)",
        effect:
          "Linux has no such parameter and ignores it: nothing says what the IOMMU translates",
        source: "drivers/virtio/virtio_mmio.c",
      });
    }
  }
  return { devices, endpoints, findings: findings.list };
}

/** Words of a command line; quotes hold blanks together. */
function wordsOf(text: string): { word: string; at: number }[] {
  return [...text.matchAll(/(?:[^\s"]|"[^"]*"?)+/g)].map((match) => ({
    word: match[0].replaceAll('"', ""),
    at: match.index,
  }));
}

/**
 * Reads one value as the kernel does.
 *
 * @param next - the id of a device that names none
 * @returns `next` for the device behind it: an id counts even in a value that is refused then
 */
export function parseDevice(
  value: string,
  next: number,
): { device: CommandLineDevice | null; next: number } {
  const size = /^(0[xX][0-9a-fA-F]+|\d+)([kKmMgGtTpPeE]?)/.exec(value);
  const rest = value.slice(size?.[0].length ?? 0);
  const match = /^@\s*(-?(?:0[xX][0-9a-fA-F]+|\d+)):\s*(\d+)(?::\s*(-?\d+))?(.*)$/s.exec(rest);
  if (match === null) return { device: null, next };
  const [, base, irq, idText, tail] = match as unknown as [
    string,
    string,
    string,
    string?,
    string?,
  ];
  const id = idText === undefined ? next : Number(BigInt.asIntN(32, BigInt(idText)));
  const interrupt = Number(BigInt.asUintN(32, BigInt(irq)));
  if (tail !== "" || interrupt === 0) return { device: null, next: id };
  const shift = " kmgtpe".indexOf((size?.[2] || " ").toLowerCase()) * 10;
  const bytes = (numberOf(size?.[1] ?? "0") << BigInt(shift)) % TWO_64;
  return { device: { id, base: numberOf(base), bytes, interrupt }, next: id + 1 };
}

/** A number with its base in front: 0x is sixteen, 0 is eight; 64 bits. */
function numberOf(text: string): bigint {
  const isNegative = text.startsWith("-");
  const digits = isNegative ? text.slice(1) : text;
  const isOctal = /^0[0-7]+$/.test(digits);
  const isHex = /^0x/i.test(digits);
  const value = BigInt(isHex ? digits : isOctal ? `0o${digits}` : digits.replace(/^0+(?=\d)/, ""));
  return BigInt.asUintN(64, isNegative ? -value : value);
}

function parseEndpoint(value: string): CommandLineEndpoint | null {
  const match = /^(\d{1,9}):(0x[0-9a-fA-F]{1,8}|\d{1,9})@(0x[0-9a-fA-F]{1,16}|\d{1,19})$/.exec(
    value,
  );
  if (match === null) return null;
  const [, iommu, endpoint, base] = match as unknown as [string, string, string, string];
  return { iommu: Number(iommu), endpoint: Number(endpoint), base: BigInt(base) };
}

/** Writes a device; sizes in K where they are whole, as Firecracker has it. */
export function deviceText({ id, base, bytes, interrupt }: CommandLineDevice): string {
  const size = bytes > 0n && bytes % 1024n === 0n ? `${bytes / 1024n}K` : `${bytes}`;
  return `virtio_mmio.device=${size}@0x${base.toString(16)}:${interrupt}:${id}`;
}

/** Writes an endpoint: the proposed argument. */
export function endpointText({ iommu, endpoint, base }: CommandLineEndpoint): string {
  return `virtio_mmio.iommu=${iommu}:0x${endpoint.toString(16)}@0x${base.toString(16)}`;
}
