/**
 * Our device for a QEMU log: settings out of the log's own lines, and endpoints as they appear.
 *
 * A log that starts with the machine names everything. One that starts later lacks ATTACH requests
 * and mappings: a domain that is used without one gets a stand-in endpoint, through which it lives.
 */
import { RANGES_LIMIT } from "../../iommu/range-map.ts";
import { addressOf } from "../../units.ts";
import { VirtioIommuDevice } from "../../virtio/iommu/device.ts";
import {
  completeConfig,
  type IommuConfig,
  type ReservedRegion,
  X86_MSI_REGION,
} from "../../virtio/iommu/device-config.ts";
import { Config, FEATURES_ALL, ResvMem, Status } from "../../virtio/iommu/protocol.ts";
import type { QuirkName } from "../../virtio/iommu/quirks.ts";
import type { QemuEvent } from "../qemu-event.ts";
import { DeviceClient } from "./device-client.ts";

/** Endpoints that a log may name; PCI functions of one segment are fewer. */
const ENDPOINTS_MAX = 2 ** 18;
/** Reserved regions of one endpoint that are taken in. */
const REGIONS_MAX = 64;

/** What a log says about the device. */
export class LogSettings {
  #features = FEATURES_ALL;
  #config: Partial<IommuConfig> = {};
  readonly #regions = new Map<number, ReservedRegion[]>();

  features(event: QemuEvent): void {
    // The low 24 bits are those of the device type.
    this.#features = (event.maskPfn % 4096) * 4096 + event.maskOffset;
  }

  config(event: QemuEvent): void {
    this.#config = {
      pageSizeMask: addressOf(event.maskPfn, event.maskOffset),
      inputRange: {
        start: addressOf(event.startPfn, event.startOffset),
        last: addressOf(event.lastPfn, event.lastOffset),
      },
      domainRange: { first: event.domainFirst, last: event.domainLast },
      probeSize: event.probeSize,
      bypass: event.flags === 1,
    };
  }

  /** Takes a reserved region of an endpoint. @returns false when there are too many */
  reserve(event: QemuEvent): boolean {
    const regions = this.#regions.get(event.endpoint) ?? [];
    const region = regionOf(event);
    if (regions.some((other) => isSameRegion(other, region))) return true;
    if (regions.length >= REGIONS_MAX || this.#regions.size >= ENDPOINTS_MAX) return false;
    this.#regions.set(event.endpoint, [...regions, region]);
    return true;
  }

  /** Reserved regions of an endpoint: its own, or the MSI region of x86 when none were logged. */
  regionsOf(endpoint: number): readonly ReservedRegion[] {
    return this.#regions.get(endpoint) ?? [X86_MSI_REGION];
  }

  /** Endpoints whose regions were logged. */
  get probed(): IterableIterator<number> {
    return this.#regions.keys();
  }

  /** Builds the device; null when the logged settings break the specification's rules. */
  build(quirks: readonly QuirkName[]): LogDevice | null {
    const config: Partial<IommuConfig> = {
      ...this.#config,
      features: this.#features,
      quirks,
      domainsMax: 2 ** 20,
      domainMappingsMax: RANGES_LIMIT,
      mappingsMax: RANGES_LIMIT,
      faultsMax: 1,
    };
    try {
      completeConfig(config);
    } catch {
      return null;
    }
    return new LogDevice(config, this);
  }
}

function regionOf(event: QemuEvent): ReservedRegion {
  return {
    start: addressOf(event.startPfn, event.startOffset),
    last: addressOf(event.lastPfn, event.lastOffset),
    kind: event.flags === ResvMem.MSI ? "msi" : "reserved",
  };
}

function isSameRegion(a: ReservedRegion, b: ReservedRegion): boolean {
  return a.start === b.start && a.last === b.last && a.kind === b.kind;
}

/** The device, with what is needed to follow a log. */
export class LogDevice {
  readonly device: VirtioIommuDevice;
  readonly client: DeviceClient;
  /** Domains from before the log, by ID: an endpoint through which each lives. */
  readonly standIns = new Map<number, number>();
  readonly #settings: LogSettings;
  readonly #known = new Set<number>();

  constructor(config: Partial<IommuConfig>, settings: LogSettings) {
    this.device = new VirtioIommuDevice(config);
    this.device.negotiate(this.device.features);
    this.client = new DeviceClient(this.device);
    this.#settings = settings;
  }

  /** Makes an endpoint known to the device. @returns false when its regions break a rule */
  add(endpoint: number): boolean {
    if (this.#known.has(endpoint)) return true;
    if (this.#known.size >= ENDPOINTS_MAX) return false;
    try {
      this.device.addEndpoint({ id: endpoint, reserved: this.#settings.regionsOf(endpoint) });
    } catch {
      return false;
    }
    this.#known.add(endpoint);
    return true;
  }

  /** Makes a domain that must have been there before the log. */
  inferDomain(domain: number): boolean {
    let id = 0xffff_ffff - this.standIns.size;
    while (this.#known.has(id)) id -= 1;
    this.#known.add(id);
    this.device.addEndpoint({ id, reserved: [] });
    this.standIns.set(domain, id);
    return this.client.attach(domain, id) === Status.OK;
  }

  /** Resets the device, as the driver or the machine does; a driver that comes back negotiates. */
  reset(isSystem: boolean): void {
    if (isSystem) this.device.systemReset();
    else this.device.reset();
    this.device.negotiate(this.device.features);
    this.standIns.clear();
  }

  /** Whether our config space reads as the logged one did. */
  readsAs(event: QemuEvent): boolean {
    const bytes = this.device.configBytes();
    const ours = Config.decode(new DataView(bytes.buffer, bytes.byteOffset, bytes.length));
    return (
      ours.pageSizeMask === addressOf(event.maskPfn, event.maskOffset) &&
      ours.inputStart === addressOf(event.startPfn, event.startOffset) &&
      ours.inputLast === addressOf(event.lastPfn, event.lastOffset) &&
      ours.domainFirst === event.domainFirst &&
      ours.domainLast === event.domainLast &&
      ours.probeSize === event.probeSize &&
      ours.bypass === event.flags
    );
  }
}
