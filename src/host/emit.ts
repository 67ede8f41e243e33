/**
 * The arguments that give a virtual machine its host's topology for chosen devices: a guest node
 * for each of the host's, its memory bound there, and an expander with a root port for each device.
 *
 * Source: QEMU docs/pcie.txt, qemu-options.hx (-numa); libvirt "Domain XML format".
 */
import { StackError } from "../errors.ts";
import { pciName } from "../iommu/pci-function.ts";
import type { Machine } from "../topology/machine.ts";
import { distanceOf } from "../topology/page-tables.ts";

/** Forms that can be written. */
export const emitForms = ["qemu", "libvirt"] as const;
export type EmitForm = (typeof emitForms)[number];

/** What each node gets; whoever takes the arguments over changes them. */
const NODE_GIB = 2;
const NODE_CPUS = 2;
/** First bus of an expander, and how far they are apart. */
const BUS_STEP = 0x20;
const NODES_MAX = 7;
const DISTANCE_DEFAULT = 20;

interface Plan {
  /** The host's nodes; their positions are the guest's. */
  readonly nodes: readonly number[];
  /** Devices with the guest's node, −1 for one that has none. */
  readonly devices: readonly { readonly name: string; readonly node: number }[];
  readonly distances: readonly (readonly number[])[];
}

/** Writes the arguments. @throws StackError when a device is not there, or there are too many nodes */
export function emitVm(host: Machine, names: readonly string[], form: EmitForm): string {
  const plan = planOf(host, names);
  return form === "qemu" ? qemuText(plan) : libvirtText(plan);
}

function planOf(host: Machine, names: readonly string[]): Plan {
  const byName = new Map(host.functions.map((one) => [pciName(one), one]));
  const chosen = names.map((name) => {
    const found = byName.get(name);
    if (found === undefined) throw refused(`the host has no function ${name}`);
    return { name, hostNode: found.node };
  });
  if (chosen.length === 0) throw refused("no device is named");
  const used = new Set(chosen.flatMap(({ hostNode }) => hostNode ?? []));
  const nodes = [...used].sort((a, b) => a - b);
  if (nodes.length > NODES_MAX) throw refused(`${nodes.length} nodes; at most ${NODES_MAX} fit`);
  const distances = nodes.map((from) =>
    nodes.map((to) => distanceOf(host, from, to) ?? (from === to ? 10 : DISTANCE_DEFAULT)),
  );
  const devices = chosen.map(({ name, hostNode }) => ({
    name,
    node: hostNode === null ? -1 : nodes.indexOf(hostNode),
  }));
  return { nodes, devices, distances };
}

function refused(message: string): StackError {
  return new StackError({
    code: "host/emit",
    kind: "input",
    message,
    hint: "name devices of the host with --device; `iommukit inspect` lists them",
  });
}

function qemuText({ nodes, devices, distances }: Plan): string {
  const count = Math.max(1, nodes.length);
  const words = [
    "-machine q35",
    `-m ${count * NODE_GIB}G`,
    `-smp ${count * NODE_CPUS},sockets=${count},cores=${NODE_CPUS},threads=1`,
  ];
  for (const [at, node] of nodes.entries()) {
    words.push(
      `-object memory-backend-ram,id=mem${at},size=${NODE_GIB}G,host-nodes=${node},policy=bind`,
      `-numa node,nodeid=${at},memdev=mem${at}`,
      `-numa cpu,node-id=${at},socket-id=${at}`,
    );
  }
  for (const [from, row] of distances.entries()) {
    for (const [to, value] of row.entries()) {
      if (from !== to) words.push(`-numa dist,src=${from},dst=${to},val=${value}`);
    }
  }
  for (const at of nodes.keys()) {
    const bus = (at + 1) * BUS_STEP;
    words.push(`-device pxb-pcie,id=pxb${at},bus=pcie.0,bus_nr=${bus},numa_node=${at}`);
  }
  for (const [at, { name, node }] of devices.entries()) {
    const bus = node < 0 ? "pcie.0" : `pxb${node}`;
    words.push(
      `-device pcie-root-port,id=port${at},bus=${bus},chassis=${at + 1}`,
      `-device vfio-pci,host=${name},bus=port${at}`,
    );
  }
  return `${words.join(" \\\n")}\n`;
}

function libvirtText({ nodes, devices, distances }: Plan): string {
  const count = Math.max(1, nodes.length);
  const lines = [
    `<memory unit='GiB'>${count * NODE_GIB}</memory>`,
    `<vcpu>${count * NODE_CPUS}</vcpu>`,
  ];
  if (nodes.length > 0) lines.push("<cpu><numa>");
  for (const [at, row] of distances.entries()) {
    const first = at * NODE_CPUS;
    lines.push(
      `  <cell id='${at}' cpus='${first}-${first + NODE_CPUS - 1}' memory='${NODE_GIB}' unit='GiB'><distances>`,
      ...row.map((value, to) => `    <sibling id='${to}' value='${value}'/>`),
      "  </distances></cell>",
    );
  }
  if (nodes.length > 0) lines.push("</numa></cpu>", "<numatune>");
  for (const [at, node] of nodes.entries()) {
    lines.push(`  <memnode cellid='${at}' mode='strict' nodeset='${node}'/>`);
  }
  if (nodes.length > 0) lines.push("</numatune>");
  lines.push("<devices>", "  <controller type='pci' index='0' model='pcie-root'/>");
  for (const at of nodes.keys()) {
    const bus = (at + 1) * BUS_STEP;
    lines.push(
      `  <controller type='pci' index='${at + 1}' model='pcie-expander-bus'>`,
      `    <target busNr='${bus}'><node>${at}</node></target>`,
      "  </controller>",
    );
  }
  for (const [at, { name, node }] of devices.entries()) {
    const index = nodes.length + 1 + at;
    const slot = devices.slice(0, at).filter((one) => one.node === node).length;
    const place = node < 0 ? "" : addressText(node + 1, slot);
    const [domain, bus, rest] = name.split(":") as [string, string, string];
    const [device, part] = rest.split(".") as [string, string];
    lines.push(
      `  <controller type='pci' index='${index}' model='pcie-root-port'>${place}</controller>`,
      "  <hostdev mode='subsystem' type='pci' managed='yes'>",
      `    <source><address domain='0x${domain}' bus='0x${bus}' slot='0x${device}' function='0x${part}'/></source>`,
      `    ${addressText(index, 0)}`,
      "  </hostdev>",
    );
  }
  return `${[...lines, "</devices>"].join("\n")}\n`;
}

function addressText(bus: number, slot: number): string {
  return `<address type='pci' domain='0' bus='${bus}' slot='${slot}' function='0'/>`;
}
