"""The platform that drives a cluster: KServe predictors behind Istio routes."""
