package consumersd

import (
	"context"
	"encoding/json"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"leadpipe/contracts"
	"leadpipe/internal/bus"
	"leadpipe/internal/consent"
)

// censusEvery is how often the numbers that may not be texted are counted.
const censusEvery = time.Minute

// measure keeps the metrics that come from the server and the bucket, and not from what
// this process does: the backlog of every durable, and the opt-outs.
func (p *parts) measure(ctx context.Context, g *errgroup.Group) {
	var durables []bus.Waiting
	for _, r := range table() {
		durables = append(durables, bus.Waiting{Stream: r.stream, Durable: r.durable})
	}
	backlog := bus.NewBacklog(p.js, durables)
	out := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "optouts", Help: "Numbers that may not be texted, by who said so."}, []string{"source"})
	p.reg.MustRegister(backlog, out, bus.Connected(p.js.Conn()))
	g.Go(func() error {
		backlog.Watch(ctx)
		return nil
	})
	g.Go(func() error {
		t := time.NewTicker(censusEvery)
		defer t.Stop()
		for {
			p.census(ctx, out)
			select {
			case <-ctx.Done():
				return nil
			case <-t.C:
			}
		}
	})
}

// census counts the opt-outs that stand. Where they can't be read the count stays.
func (p *parts) census(ctx context.Context, out *prometheus.GaugeVec) {
	count := map[contracts.OptOutSource]int{contracts.OptOutBySMS: 0, contracts.OptOutByProvider: 0, contracts.OptOutByOperator: 0}
	err := bus.Records(ctx, p.js, []string{"optout."}, func(records []contracts.Message) error {
		for _, r := range records {
			var o contracts.OptOut
			if json.Unmarshal(r.Data, &o) != nil || !consent.IsOut(o) {
				continue
			}
			if _, known := count[o.Source]; !known { // written by hand
				o.Source = contracts.OptOutByOperator
			}
			count[o.Source]++
		}
		return nil
	})
	if err != nil {
		return
	}
	for source, n := range count {
		out.WithLabelValues(string(source)).Set(float64(n))
	}
}
