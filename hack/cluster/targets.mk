# A real cluster: made here, or the user's own by KUBECONFIG=...
.PHONY: cluster cluster-down cluster-status cluster-proof argocd-proof

##@ A cluster (KUBECONFIG=... takes your own; docs/cluster.md)

cluster: ## Make a two-node Kubernetes on this machine, with the chart and real models in it
	@$${PYTHON:-python3} -m hack.cluster up

cluster-down: ## Take it down, and say what is left of it
	@$${PYTHON:-python3} -m hack.cluster down

cluster-proof: ## Prove it: policies, volumes, node loss, monitoring, autoscaling, Argo CD
	$(install) test
	@$(VENV)/bin/python -m pytest hack/cluster/proofs

argocd-proof: ## Sync gitops/ by Argo CD under traffic: phases, drift, mistakes, a roll back (docs/gitops.md)
	$(install) test
	@$(VENV)/bin/python -m hack.argocd

cluster-status: ## Nodes and pods of the cluster
	@$${PYTHON:-python3} -m hack.cluster status
