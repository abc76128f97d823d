package main

import (
	"bufio"
	"context"
	"encoding/json"
	"log/slog"
	"os"

	"github.com/prometheus/client_golang/prometheus"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"github.com/cilium/cilium/pkg/hubble/metrics"
	"github.com/cilium/cilium/pkg/hubble/metrics/api"
)

type series struct {
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels"`
	Value  float64           `json:"value"`
}

// Flows up to an empty one, counted by Hubble's own handlers, each as its argument says; a line of JSON for each series.
func counted(handlers []string) {
	registry := prometheus.NewPedanticRegistry()
	made, err := metrics.InitMetricHandlers(slog.New(slog.DiscardHandler), registry, api.ParseStaticMetricsConfig(handlers))
	if err != nil {
		panic(err)
	}
	in, out := bufio.NewReader(os.Stdin), json.NewEncoder(os.Stdout)
	for data := next(in); len(data) > 0; data = next(in) {
		flow := parsed(data, &flowpb.Flow{})
		for _, each := range *made {
			if err := each.Handler.ProcessFlow(context.Background(), flow); err != nil {
				panic(err)
			}
		}
	}
	families, err := registry.Gather()
	if err != nil {
		panic(err)
	}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			found := series{family.GetName(), map[string]string{}, metric.GetCounter().GetValue()}
			for _, label := range metric.GetLabel() {
				found.Labels[label.GetName()] = label.GetValue()
			}
			if err := out.Encode(found); err != nil {
				panic(err)
			}
		}
	}
}
