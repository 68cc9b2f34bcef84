"""Moves applications from Ollama instances of their own to the gateway, and back.

kubeconfig, kube   how the Kubernetes API is reached
find, policies     which Services lead to an Ollama, and what stands against moving one
models             what an Ollama has, and what the gateway lacks of it
changes            what is changed on each object, and how it is noted there
plan, run          the plan as people read it; its execution, and the way back
"""

from synapse_gateway.decommission.errors import DecommissionError, KubeError, Refusal
from synapse_gateway.decommission.kube import Kube
from synapse_gateway.decommission.kubeconfig import Cluster, find_cluster
from synapse_gateway.decommission.plan import Options, Plan, as_json, make_plan, render, steps
from synapse_gateway.decommission.run import Run

__all__ = [
    "Cluster",
    "DecommissionError",
    "Kube",
    "KubeError",
    "Options",
    "Plan",
    "Refusal",
    "Run",
    "as_json",
    "find_cluster",
    "make_plan",
    "render",
    "steps",
]
