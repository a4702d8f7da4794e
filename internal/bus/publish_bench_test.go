package bus_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/contracts"
	"leadpipe/internal/bus"
	"leadpipe/internal/natstest"
)

// Messages of 2.6 KB, as a Stripe event has, by 1 to 256 callers at once: "raw" is
// nats.go's own publish, one acknowledgement a message, on the same server.
func BenchmarkPublish(b *testing.B) {
	for _, on := range []struct {
		name string
		opts []natstest.Option
	}{{"one", nil}, {"three", []natstest.Option{natstest.Cluster}}} {
		b.Run("servers="+on.name, func(b *testing.B) {
			s := natstest.New(b, on.opts...)
			// One connection for all: of three servers, which one it is to makes a difference.
			raw := s.JetStream("edge")
			for _, callers := range []int{1, 16, 32, 64, 256} {
				b.Run(fmt.Sprintf("callers=%d/how=raw", callers), func(b *testing.B) {
					load(b, callers, func(ctx context.Context, m contracts.Message) error {
						msg := nats.NewMsg(m.Subject)
						msg.Data = m.Data
						msg.Header.Set(jetstream.MsgIDHeader, m.ID)
						_, err := raw.PublishMsg(ctx, msg)
						return err
					})
				})
				for _, mode := range []bus.PublishMode{bus.PublishAuto, bus.PublishGroup} {
					p := bus.NewPublisherWith(raw, bus.PublishOptions{Mode: mode})
					b.Run(fmt.Sprintf("callers=%d/how=%s", callers, mode), func(b *testing.B) {
						load(b, callers, func(ctx context.Context, m contracts.Message) error {
							return p.Publish(ctx, []contracts.Message{m})
						})
					})
				}
			}
		})
	}
}

var benchID atomic.Int64

// load calls publish b.N times from so many callers.
func load(b *testing.B, callers int, publish func(context.Context, contracts.Message) error) {
	data := make([]byte, 2600)
	took := make([][]time.Duration, callers)
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	b.ResetTimer()
	for c := range callers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				m := contracts.Message{Subject: contracts.SubjectStripe("invoice.paid"),
					ID: fmt.Sprintf("stripe:evt_%d", benchID.Add(1)), Data: data}
				ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
				start := time.Now()
				if err := publish(ctx, m); err != nil {
					b.Error(err)
				}
				cancel()
				took[c] = append(took[c], time.Since(start))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	all := slices.Concat(took...)
	slices.Sort(all)
	b.ReportMetric(float64(len(all))/b.Elapsed().Seconds(), "msg/s")
	b.ReportMetric(float64(all[len(all)/2])/1e6, "p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100])/1e6, "p99-ms")
}
