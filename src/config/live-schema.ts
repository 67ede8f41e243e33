/** The form of a machine file: schema `iommukit/vm@1`, described in `docs/live.md`. */
import { z } from "zod";
import { parseBdf } from "../topology/pci-address.ts";
import { address, integer, numberList } from "./scalars.ts";

export const LIVE_SCHEMA = "iommukit/vm@1";

const flag = z.boolean({ error: "this is neither true nor false" });
const text = z.string({ error: "this is no text" }).max(4096);

function choice<const T extends readonly string[]>(values: T) {
  return z.enum(values, { error: `this is none of ${values.join(", ")}` });
}

/** Names become names of sockets and of QEMU's objects. */
const name = text.regex(/^[a-z][a-z0-9-]{0,30}$/, {
  error: "a name is a small letter, then up to 30 small letters, digits and hyphens",
});

/** A slot of bus 0: `4`, `00:04.0`. */
const slot = z
  .union([z.string(), z.bigint()], { error: "this is no slot" })
  .transform((value, context): number => {
    const device = slotNumber(String(value));
    if (device !== null) return device;
    const message = `${JSON.stringify(String(value).slice(0, 60))} is no slot of bus 0, such as 4 or 00:04.0`;
    context.issues.push({ code: "custom", input: value, message });
    return z.NEVER;
  });

function slotNumber(value: string): number | null {
  if (/^\d{1,2}$/.test(value) && Number(value) < 32) return Number(value);
  const found = parseBdf(value);
  if (found === null || found.segment !== 0 || found.bus !== 0) return null;
  return (found.devfn & 7) === 0 ? found.devfn >> 3 : null;
}

/** `127.0.0.1:9464`, `[::1]:9464`, or the path of a socket. */
const metrics = text.transform((value, context) => {
  const port = /^(?:127\.0\.0\.1|localhost|\[::1\]):(\d{1,5})$/.exec(value)?.[1];
  if (port !== undefined && Number(port) > 0 && Number(port) < 65_536) {
    return { kind: "loopback" as const, port: Number(port) };
  }
  if (value.includes("/") || value.endsWith(".sock")) return { kind: "unix" as const, path: value };
  const message = `${JSON.stringify(value.slice(0, 60))} is neither a socket's path nor 127.0.0.1:PORT`;
  context.issues.push({ code: "custom", input: value, message });
  return z.NEVER;
});

const iommu = z.strictObject({
  name: name.optional(),
  at: slot,
  bypass: flag.optional(),
  doorbell: choice(["message", "page"]).optional(),
});

const port = z.strictObject({ name, at: slot });

const disk = z.strictObject({
  kind: choice(["virtio-blk", "nvme"]),
  name,
  at: slot.optional(),
  behind: name.optional(),
  image: text.min(1, { error: "an image is the path of a file" }).optional(),
  size: address.optional(),
  readOnly: flag.optional(),
  queues: integer(1, 64).optional(),
  translated: flag.optional(),
});

const node = z.strictObject({
  memory: address,
  cpus: numberList,
  hostNode: integer(0, 1023).optional(),
});

const qemu = z.strictObject({
  program: text.optional(),
  accelerator: choice(["tcg", "kvm"]).optional(),
  cpu: text.optional(),
  kernel: text.optional(),
  initrd: text.optional(),
  append: text.optional(),
  boot: name.optional(),
  arguments: z.array(text, { error: "this is no list of words" }).max(256).optional(),
});

export const liveSchema = z.strictObject(
  {
    schema: z.literal(LIVE_SCHEMA, { error: `this is not ${LIVE_SCHEMA}` }),
    name: name.optional(),
    memory: address,
    cpus: integer(1, 255).optional(),
    nodes: z.array(node).max(16).optional(),
    ram: choice(["pin", "fault"]).optional(),
    ports: z.array(port).max(16).optional(),
    iommu: iommu.optional(),
    disks: z.array(disk).max(32).optional(),
    metrics: metrics.optional(),
    qemu: qemu.optional(),
  },
  { error: (issue) => (issue.code === "invalid_type" ? "a machine is a map" : undefined) },
);

export type LiveDocument = z.output<typeof liveSchema>;
export type DiskDocument = NonNullable<LiveDocument["disks"]>[number];
