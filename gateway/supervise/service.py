"""A whole service: the supervisor with its workers, and beside them what monitors ask."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import replace

from gateway.metrics.supervisor import SupervisorMetrics
from gateway.supervise.monitoring import Monitoring, metrics_folder
from gateway.supervise.observers import Observer
from gateway.supervise.plan import Plan
from gateway.supervise.process import WorkerRefusedError
from gateway.supervise.supervisor import Supervisor


async def run_service(plan: Plan, observers: Iterable[Observer]) -> None:
    """Serve until SIGTERM or SIGINT. Raises WorkerRefusedError when a first worker cannot begin."""
    folder = metrics_folder(plan.sources.resolve(plan.config.server.admin_socket))
    try:
        metrics = SupervisorMetrics(folder)
    except OSError as error:
        raise WorkerRefusedError(f"workers cannot count in {folder}: {error.strerror}", 1) from error
    supervisor = Supervisor(replace(plan, worker_environment=metrics.worker_environment), observers)
    monitoring = Monitoring(metrics, supervisor.workers)
    supervisor.tell(monitoring)
    async with AsyncExitStack() as stack:
        if plan.sockets.monitoring is not None:
            await stack.enter_async_context(monitoring.answering(plan.sockets.monitoring))
        await supervisor.run()
