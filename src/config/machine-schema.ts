/**
 * The form of a topology file: schema `iommukit/topology@1`, described in `docs/inspect.md`.
 *
 * Everything that has an ordinary value may be left out; `machine-yaml.ts` says what it then is.
 */
import { z } from "zod";
import { TOPOLOGY_SCHEMA } from "./machine-defaults.ts";
import {
  address,
  addressRange,
  bdf,
  bdfRange,
  busRange,
  integer,
  numberList,
  pciId,
  word,
} from "./scalars.ts";

const u8 = integer(0, 0xff);
const u16 = integer(0, 0xffff);
const u32 = integer(0, 0xffff_ffff);
const nodeId = integer(0, 65_535);
const node = z.union([z.literal("none"), nodeId], {
  error: "this is neither the number of a node nor `none`",
});
const flag = z.boolean({ error: "this is neither true nor false" });
const text = z.string({ error: "this is no text" }).max(4096);

function choice<const T extends readonly string[]>(values: T) {
  return z.enum(values, { error: `this is none of ${values.join(", ")}` });
}

/** `memory 0xfe000000-0xfeffffff`. */
const window = z.string({ error: "this is no window" }).transform((value, context) => {
  const match = /^(memory|prefetchable|io) (\S+)$/.exec(value);
  const range = addressRange.safeParse(match?.[2]);
  if (match !== null && range.success) {
    return { kind: match[1] as "memory" | "prefetchable" | "io", ...range.data };
  }
  const message = `${JSON.stringify(value.slice(0, 60))} is no window, such as "memory 0x1000-0x1fff"`;
  context.issues.push({ code: "custom", input: value, message });
  return z.NEVER;
});

const memory = z.union(
  [
    addressRange,
    z.strictObject({
      range: addressRange,
      hotPluggable: flag.optional(),
      nonVolatile: flag.optional(),
    }),
  ],
  { error: "this is no range of addresses, such as 0x1000-0x1fff, nor a map with one" },
);

const numaNode = z.strictObject({
  id: nodeId,
  proximityDomain: u32.optional(),
  cpus: numberList.optional(),
  firmwareCpuIds: numberList.optional(),
  memory: z.array(memory).optional(),
  memoryBytes: address.optional(),
  distances: z.array(integer(1, 255)).optional(),
});

const hostBridge = z.strictObject({
  buses: busRange,
  node: node.optional(),
  ecamBase: address.optional(),
  windows: z.array(window).optional(),
  bypassesIommu: flag.optional(),
  atsSupported: flag.optional(),
});

const bar = z.strictObject({
  index: integer(0, 12),
  kind: choice(["memory32", "memory64", "io"]),
  prefetchable: flag.optional(),
  start: address,
  bytes: address,
});

const portType = choice([
  "conventional",
  "endpoint",
  "legacy-endpoint",
  "root-port",
  "upstream",
  "downstream",
  "pcie-to-pci-bridge",
  "pci-to-pcie-bridge",
  "rc-endpoint",
  "rc-event-collector",
]);

const quirks = z.strictObject({
  isolated: flag.optional(),
  aliases: z.array(u8).optional(),
  dmaOf: bdf.optional(),
  isTranslationRoot: flag.optional(),
  aliasesSecondaryBus: flag.optional(),
});

const pciFunction = z.strictObject({
  at: bdf,
  bridge: bdf.optional(),
  id: pciId.optional(),
  subsystem: pciId.optional(),
  revision: u8.optional(),
  class: integer(0, 0xff_ffff).optional(),
  header: choice(["endpoint", "bridge", "cardbus"]).optional(),
  port: portType.optional(),
  multifunction: flag.optional(),
  buses: busRange.optional(),
  windows: z.array(window).optional(),
  node: node.optional(),
  acs: z.strictObject({ capability: u16, control: u16 }).optional(),
  ats: z
    .strictObject({
      enabled: flag.optional(),
      queueDepth: integer(1, 32).optional(),
      pageAligned: flag.optional(),
      unitShift: integer(12, 43).optional(),
    })
    .optional(),
  pri: z
    .strictObject({
      enabled: flag.optional(),
      requestsMax: u32.optional(),
      requestsAllocated: u32.optional(),
      pasidRequired: flag.optional(),
    })
    .optional(),
  pasid: z
    .strictObject({
      enabled: flag.optional(),
      bits: integer(0, 31).optional(),
      execute: flag.optional(),
      privileged: flag.optional(),
    })
    .optional(),
  sriov: z
    .strictObject({
      totalVfs: u16,
      vfs: u16.optional(),
      firstVfOffset: u16.optional(),
      vfStride: u16.optional(),
      vfDevice: u16.optional(),
    })
    .optional(),
  physicalFunction: bdf.optional(),
  bars: z.array(bar).optional(),
  quirks: quirks.optional(),
  configRead: choice(["none", "header", "conventional", "extended"]).optional(),
  untrusted: flag.optional(),
  driver: text.optional(),
  iommu: text.optional(),
  group: integer(0, 0x7fff_ffff).optional(),
});

const platformDevice = z.strictObject({
  name: text,
  path: text.optional(),
  identity: text.optional(),
  registers: z.array(addressRange).optional(),
  interrupts: numberList.optional(),
  node: nodeId.optional(),
  driver: text.optional(),
  iommu: text.optional(),
  group: integer(0, 0x7fff_ffff).optional(),
});

/** Functions, and the ids that an IOMMU knows them by; `below` adds what is below a bridge. */
const ridRange = z.strictObject({
  functions: bdfRange,
  firstId: u32.optional(),
  below: flag.optional(),
});

const iommu = z.strictObject({
  name: text,
  kind: choice(["vtd", "amd", "smmuv2", "smmuv3", "virtio-pci", "virtio-mmio", "other"]),
  node: nodeId.optional(),
  rest: flag.optional(),
  translates: z.array(ridRange).optional(),
  endpoints: z.array(z.strictObject({ base: address, id: u32, path: text.optional() })).optional(),
  interruptSources: z
    .array(z.strictObject({ kind: choice(["ioapic", "hpet"]), id: u32, at: bdf }))
    .optional(),
  at: bdf.optional(),
  segment: u32.optional(),
  registers: addressRange.optional(),
  interrupts: numberList.optional(),
  coherent: flag.optional(),
  version: text.optional(),
  capability: word.optional(),
  extendedCapability: word.optional(),
  capabilityOffset: u16.optional(),
  features: word.optional(),
  features2: word.optional(),
});

const firmwareRegion = z.strictObject({
  range: addressRange,
  source: choice(["rmrr", "ivmd", "rmr", "devicetree", "probe"]),
  treatment: choice(["mapped", "excluded", "msi"]).optional(),
  access: choice(["none", "read", "write", "read-write"]).optional(),
  functions: z.array(ridRange).optional(),
});

const atsScope = z.strictObject({
  segment: u32.optional(),
  kind: choice(["all-ports", "ports", "integrated"]),
  functions: z.array(bdf).optional(),
  required: flag.optional(),
});

const group = z.strictObject({
  id: integer(0, 0x7fff_ffff),
  type: choice(["identity", "DMA", "DMA-FQ", "blocked", "unmanaged", "unknown"]).optional(),
  name: text.optional(),
  devices: z.array(text),
  regions: z
    .array(
      z.strictObject({
        range: addressRange,
        type: choice(["direct", "direct-relaxable", "reserved", "msi"]),
      }),
    )
    .optional(),
});

const kernel = z.strictObject({
  release: text.optional(),
  commandLine: text.optional(),
  strict: flag.optional(),
  passthrough: flag.optional(),
});

/** A topology file. */
export const machineSchema = z.strictObject(
  {
    schema: z.literal(TOPOLOGY_SCHEMA, { error: `this is not ${TOPOLOGY_SCHEMA}` }),
    architecture: text.optional(),
    firmware: choice(["acpi", "devicetree", "none"]).optional(),
    nodes: z.array(numaNode).optional(),
    hostBridges: z.array(hostBridge).optional(),
    functions: z.array(pciFunction).optional(),
    platformDevices: z.array(platformDevice).optional(),
    iommus: z.array(iommu).optional(),
    firmwareRegions: z.array(firmwareRegion).optional(),
    atsScopes: z.array(atsScope).optional(),
    groups: z.array(group).optional(),
    kernel: kernel.optional(),
  },
  {
    error: (issue) => (issue.code === "invalid_type" ? "a topology is a map of lists" : undefined),
  },
);

export type MachineDocument = z.output<typeof machineSchema>;
export type FunctionDocument = z.output<typeof pciFunction>;
export type IommuDocument = z.output<typeof iommu>;
export type NodeDocument = z.output<typeof numaNode>;
export type RidRangeDocument = z.output<typeof ridRange>;

/** The form as JSON Schema, for editors. Scalars are text or whole numbers there. */
export function machineJsonSchema(): unknown {
  return z.toJSONSchema(machineSchema, {
    io: "input",
    unrepresentable: "any",
    override: ({ zodSchema, jsonSchema }) => {
      if (zodSchema._zod.def.type === "bigint") jsonSchema.type = "integer";
    },
  });
}
