"""The newest sample, whole and in parts."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

import shm_monitor as sm
from shm_monitor_api import bodies
from shm_monitor_api.answers import answered, of_snapshot
from shm_monitor_api.dependencies import CurrentService, Newest
from shm_monitor_api.openapi import DocumentedRoute, data

router = APIRouter(tags=["data"], route_class=DocumentedRoute)


@router.get("/resources/all", **data(bodies.Resources))
async def get_all(request: Request, reading: Newest) -> Response:
    """Return the resources of the newest sample."""
    return of_snapshot(request, reading, bodies.Resources.of)


@router.get("/resources/prune", **data(sm.Explanation))
async def get_prune(request: Request, reading: Newest, service: CurrentService) -> Response:
    """Say whether work should be shed now, and why."""
    # The tag before the body: a body newer than its tag is fetched once more, an older one would be kept.
    return answered(request, reading, service.reader.explain, "prune")


@router.get("/snapshot", **data(sm.Snapshot))
async def get_snapshot(request: Request, reading: Newest) -> Response:
    """Return everything of the newest sample."""
    return answered(request, reading, lambda: reading.snapshot, "snapshot")


@router.get("/resources/cpu", **data(bodies.CpuResource))
async def get_cpu(request: Request, reading: Newest) -> Response:
    """Return the CPU use of the newest sample."""
    return of_snapshot(request, reading, bodies.CpuResource.of)


@router.get("/resources/memory", **data(bodies.MemoryResource))
async def get_memory(request: Request, reading: Newest) -> Response:
    """Return the memory in use in the newest sample."""
    return of_snapshot(request, reading, bodies.MemoryResource.of)


@router.get("/resources/gpu", **data(bodies.GpuResource))
async def get_gpu(request: Request, reading: Newest) -> Response:
    """Return the use of the GPUs in the newest sample."""
    return of_snapshot(request, reading, bodies.GpuResource.of)


@router.get("/resources/network", **data(bodies.NetworkResource))
async def get_network(request: Request, reading: Newest) -> Response:
    """Return the network traffic of the newest sample."""
    return of_snapshot(request, reading, bodies.NetworkResource.of)


@router.get("/workers", **data(bodies.PresentWorkers))
async def get_workers(request: Request, reading: Newest) -> Response:
    """Return the workers that have presented themselves."""
    return of_snapshot(request, reading, bodies.PresentWorkers.of)


@router.get("/schema", **data(bodies.SchemaTable))
async def get_schema(request: Request, reading: Newest, service: CurrentService) -> Response:
    """Return what is measured and what is limited: name, unit, help, source."""
    return answered(request, reading, lambda: bodies.SchemaTable.of(service.reader), "schema")
