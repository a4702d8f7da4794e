package sms_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/natstest"
	standin "leadpipe/internal/sandbox/twilio"
)

// BenchmarkTexts is how many texts a second go through, from the first call to Twilio
// to the last, with 100 ms a call and every commit on disk.
func BenchmarkTexts(b *testing.B) {
	const texts = 4000
	for _, processes := range []int{1, 3} {
		b.Run(fmt.Sprintf("processes=%d", processes), func(b *testing.B) {
			for b.Loop() {
				r := newRigOn(b, natstest.New(b), func(o *standin.Options) {
					o.MinLatency, o.MaxLatency = 100*time.Millisecond, 100*time.Millisecond
				})
				for first := 0; first < texts; first += 200 {
					r.queue(span(first, first+200)...)
				}
				for range processes {
					r.spawn(envParallel+"=64", envCallTime+"=10s")
				}
				eventually(b, 2*time.Minute, "all texts are sent", func() bool { return len(r.twilio.Calls()) >= texts })
				calls := r.twilio.Calls()
				b.ReportMetric(texts/calls[len(calls)-1].Began.Sub(calls[0].Began).Seconds(), "texts/s")
			}
		})
	}
}

// BenchmarkBelgian is what a number that the sender does not reach costs the others: 60
// French leads at 20 a second, 100 ms a call, without and with a Belgian among them. It
// gives the time from a lead's text in the bucket to the call.
func BenchmarkBelgian(b *testing.B) {
	const french, belgian = 60, "+32470123456"
	for _, with := range []bool{false, true} {
		b.Run(fmt.Sprintf("belgian=%t", with), func(b *testing.B) {
			var waits []time.Duration
			for b.Loop() {
				r := newRigOn(b, natstest.New(b), func(o *standin.Options) {
					o.MinLatency, o.MaxLatency = 100*time.Millisecond, 100*time.Millisecond
					o.Reject = func(to string) (int, int) {
						if strings.HasPrefix(to, "+32") {
							return 400, 21606
						}
						return 0, 0
					}
				})
				r.queue(french) // the account is proven by a text before
				stop := r.runSMS()
				r.statuses(20*time.Second, french, french+1, contracts.SMSSent)
				queued := map[string]time.Time{}
				for n := range french {
					if with && n == french/2 {
						lead, text := welcome(french + 1)
						lead.Phone, text.To = belgian, belgian
						r.put(contracts.KeyLead(lead.ID), lead)
						r.put(contracts.KeySMS(text.Kind, text.Cause), text)
					}
					queued[number(n)] = time.Now()
					r.queue(n)
					time.Sleep(50 * time.Millisecond)
				}
				r.statuses(20*time.Second, 0, french, contracts.SMSSent)
				stop()
				for _, c := range r.twilio.Calls() {
					if at, ok := queued[c.To]; ok {
						waits = append(waits, c.Began.Sub(at))
					}
				}
			}
			slices.Sort(waits)
			b.ReportMetric(float64(waits[len(waits)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(waits[len(waits)*99/100].Microseconds())/1000, "p99-ms")
			b.ReportMetric(0, "ns/op")
		})
	}
}
