# Targets that deploy, look at and remove a release. Every one honours the same variables, so that
# KUBECTL="ssh forge sudo kubectl" HELM="ssh forge sudo helm" works from another machine.
REGISTRY ?=
KUBECTL ?= kubectl
HELM ?=
NAMESPACE ?= llm-infra
RELEASE ?= synapse
VALUES ?= values/forge.yaml
GATEWAY_SECRETS_FILE ?= values/examples/gateway-secrets.yaml
FORGE_HOST ?= forge
REMOTE_DIR ?= synapse
GATEWAY_REMOTE_TAG ?=
MANIFESTS ?= build/manifests
# KUBECTL goes to scripts only if it was given: the targets of hack/cluster have a kubectl of their own.
export REGISTRY HELM NAMESPACE RELEASE VALUES GATEWAY_SECRETS_FILE FORGE_HOST REMOTE_DIR \
	GATEWAY_REMOTE_TAG MANIFESTS CONFIRM PURGE BUILDER

components = infra ollama llm stt speaker audio terminal-feed-bus
.PHONY: deploy deploy-phase1 $(addprefix deploy-,$(components)) deploy-gateway-secrets build-gateway \
	release-gateway-remote manifests pull-models test-health test-embed test-tts logs logs-feed-bus \
	show-routes validate validate-gitops clean chart pin-digests

##@ Deploy (VALUES=values/forge.yaml, NAMESPACE, KUBECTL, HELM, REGISTRY)

deploy: ## Install or upgrade everything in VALUES
	@hack/chart-deploy.sh

deploy-phase1: ## Infrastructure, embeddings, speech, gateway (values/starter.yaml)
	@VALUES=values/starter.yaml hack/chart-deploy.sh

deploy-infra: ## Make the namespace and check what VALUES needs of the cluster
	@hack/chart-preflight.sh

$(addprefix deploy-,$(filter-out infra,$(components))): deploy-%: ## (deploy-ollama, -llm, -stt, -speaker, -audio, -terminal-feed-bus)
	@hack/chart-deploy.sh $*

deploy-gateway-secrets: ## Apply GATEWAY_SECRETS_FILE; refuses while a placeholder is left in it
	@hack/chart-secrets.sh

build-gateway: ## Build and push REGISTRY/synapse-gateway
	@hack/chart-build-gateway.sh

release-gateway-remote: ## Build and push on FORGE_HOST, then deploy by the digest of the push
	@hack/chart-release-remote.sh

manifests: ## Render VALUES into plain manifests (MANIFESTS=build/manifests) for kubectl without Helm
	@hack/chart-manifests.sh

clean: ## Remove the release (CONFIRM=llm-infra); PURGE=1 deletes the namespace with its volumes
	@hack/chart-clean.sh

##@ Look at a deployment

pull-models: ## Bring the models of VALUES into Ollama again, and follow the log
	@hack/chart-pull-models.sh

test-health: ## Pods and backends of the running deployment
	@hack/chart-probe.sh health

test-embed: ## An embedding by the running deployment
	@hack/chart-probe.sh embed

test-tts: ## Speech by the running deployment
	@hack/chart-probe.sh tts

logs: ## Follow every pod's log
	@$(KUBECTL) -n $(NAMESPACE) logs -f --prefix --tail=20 --max-log-requests=50 --all-containers -l app.kubernetes.io/part-of=synapse

logs-feed-bus: ## Follow the log of Redis
	@$(KUBECTL) -n $(NAMESPACE) logs -f --tail=100 --all-containers -l app.kubernetes.io/name=terminal-feed-redis

show-routes: ## The route table of the running gateway
	@$(KUBECTL) -n $(NAMESPACE) exec deployment/synapse-gateway -c gateway -- synapse routes

##@ The chart

chart: ## Write the chart's schema, README, network table, phase steps and compose.yaml anew
	@hack/chart-generate.sh

validate: ## Validate VALUES offline, and by server-side dry run where a cluster answers
	@hack/chart-validate.sh

validate-gitops: ## Check gitops/ as its Argo CD would, and render every Application
	@hack/validate-gitops.sh

pin-digests: ## Ask the registries for the digest of every tag and write it beside the tag
	@$${PYTHON:-python3} hack/pin_digests.py charts/synapse/values.yaml values/*.yaml
