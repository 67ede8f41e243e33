/** A unit, a device and its group, with either way to fault, for the tests of this room. */
import { PagePool } from "../../memory/page-pool.ts";
import { CountingMeter } from "../../meter.ts";
import { claimGroup } from "../attach.ts";
import { IommuDevice } from "../device.ts";
import { DomainType, type IommuDomain } from "../domain.ts";
import { vtdSecondStage } from "../formats/vtd-second-stage.ts";
import type { IommuGroup } from "../group.ts";
import { IommuGroups } from "../groups.ts";
import { HardwareOps } from "../hardware-ops.ts";
import { makeUnit } from "../hardware-world.suite.ts";
import { PageTable } from "../page-table.ts";
import { PROT_RW } from "../prot.ts";
import type { TranslationUnit } from "../translation-unit.ts";
import { attachGroupHandle } from "./attach-handle.ts";
import type { FaultGroup, IopfAllocation, IopfHandler } from "./fault-group.ts";
import { IopfQueue } from "./iopf-queue.ts";
import { type PageRequest, PageResponse } from "./page-request.ts";

export const RID = 0x3b00;

/** An answer that a device got. */
export interface Answer {
  readonly device: string;
  readonly grpid: number;
  readonly pasid: number;
  readonly code: number;
}

export interface IopfWorld {
  readonly meter: CountingMeter;
  readonly unit: TranslationUnit;
  readonly pool: PagePool;
  readonly iopf: IopfQueue;
  readonly device: IommuDevice;
  readonly group: IommuGroup;
  readonly domain: IommuDomain;
  readonly answers: Answer[];
  /** Where answers go beside `answers`. */
  onAnswer: (device: IommuDevice, last: PageRequest, code: PageResponse) => void;
  /** Allocations that succeed before all of them fail. */
  allocations: number;
}

/** A device that a user owns, attached by handle to a paging domain that `handler` serves. */
export function makeIopfWorld(handler: IopfHandler | null): IopfWorld {
  const meter = new CountingMeter();
  const pool = new PagePool([{ node: 0, basePfn: 0x10_0000, frameCount: 16384 }]);
  const unit = makeUnit(meter);
  const answers: Answer[] = [];
  const ops = new HardwareOps({
    name: "iommu",
    unitOf: () => unit,
    createDomain() {
      const table = PageTable.create({ format: vtdSecondStage({ levels: 4 }), pool, node: 0 });
      return table === null ? null : { table };
    },
    pageResponse(to, last, code) {
      answers.push({ device: to.name, grpid: last.grpid, pasid: last.pasid, code });
      world.onAnswer(to, last, code);
    },
  });
  const groups = new IommuGroups({ defaultType: DomainType.DMA });
  const device = new IommuDevice({ name: "0000:3b:00.0", ops, rid: RID, maxPasids: 16 });
  groups.add(device);
  const group = groups.of(device)!;
  claimGroup(group, {});
  const domain = group.allocDomain(DomainType.UNMANAGED) as IommuDomain;
  domain.iopfHandler = handler;
  attachGroupHandle(group, { domain });
  const world: IopfWorld = {
    meter,
    unit,
    pool,
    iopf: new IopfQueue({
      allow: (_what: IopfAllocation) => {
        world.allocations -= 1;
        return world.allocations >= 0;
      },
    }),
    device,
    group,
    domain,
    answers,
    onAnswer: () => {},
    allocations: Number.POSITIVE_INFINITY,
  };
  return world;
}

/** Maps each requested frame to itself plus an offset, from the queue, and answers. */
export class MappingHandler implements IopfHandler {
  domain: IommuDomain | null = null;
  readonly seen: number[] = [];
  /** Frames that are not to be had. */
  readonly holes = new Set<number>();
  handle(group: FaultGroup): number {
    return group.defer((work) => {
      let code: PageResponse = PageResponse.SUCCESS;
      for (const { iovaPfn } of work.requests) {
        this.seen.push(iovaPfn);
        if (this.holes.has(iovaPfn)) code = PageResponse.INVALID;
        else if (this.domain!.iovaToPhys(iovaPfn) < 0) {
          this.domain!.map(iovaPfn, iovaPfn + 0x1000, 1, PROT_RW);
        }
      }
      work.respond(code);
    });
  }
}
