package bus_test

import (
	"errors"
	"fmt"
	"testing"

	"leadpipe/contracts"
	"leadpipe/internal/bus"
	"leadpipe/internal/natstest"
)

func TestMessages(t *testing.T) {
	t.Parallel()
	s := natstest.New(t, natstest.LazySync)
	edge, js, operator := s.JetStream("edge"), s.JetStream("consumers"), s.JetStream("operator")
	for i := range 600 { // more than two pages
		if _, err := edge.Publish(t.Context(), contracts.SubjectStripe(fmt.Sprintf("kind%d", i%2)), []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	read := func(r bus.Range, each func(m contracts.Message) error) (got []uint64, err error) {
		r.Stream = contracts.StreamWebhooks
		err = bus.Messages(t.Context(), js, r, func(m contracts.Message, _ uint64) error {
			got = append(got, m.Sequence)
			if each != nil {
				return each(m)
			}
			return nil
		})
		return got, err
	}
	want := func(name string, got []uint64, err error, n int, first, step uint64) {
		t.Helper()
		if err != nil || len(got) != n {
			t.Fatalf("%s: %d messages, %v", name, len(got), err)
		}
		for i, seq := range got {
			if seq != first+uint64(i)*step {
				t.Fatalf("%s: message %d is number %d", name, i, seq)
			}
		}
	}
	got, err := read(bus.Range{}, nil)
	want("all", got, err, 600, 1, 1)
	got, err = read(bus.Range{Subjects: []string{contracts.SubjectStripe("kind1")}, First: 3, Last: 10}, nil)
	want("some", got, err, 4, 4, 2)
	got, err = read(bus.Range{First: 601}, nil)
	want("behind the end", got, err, 0, 0, 1)
	got, err = read(bus.Range{Subjects: []string{contracts.SubjectStripe("none")}}, nil)
	want("none", got, err, 0, 0, 1)

	stop := errors.New("enough")
	got, err = read(bus.Range{}, func(m contracts.Message) error {
		if m.Sequence == 5 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || len(got) != 5 {
		t.Errorf("%d messages, %v", len(got), err)
	}
	// The server forgets the consumer while it is read from: nothing is missed, nor twice.
	got, err = read(bus.Range{}, func(m contracts.Message) error {
		if m.Sequence != 100 {
			return nil
		}
		stream, err := operator.Stream(t.Context(), contracts.StreamWebhooks)
		if err != nil {
			return err
		}
		for info := range stream.ListConsumers(t.Context()).Info() {
			if info.Config.Durable == "" {
				if err := operator.DeleteConsumer(t.Context(), contracts.StreamWebhooks, info.Name); err != nil {
					return err
				}
			}
		}
		return nil
	})
	want("forgotten", got, err, 600, 1, 1)
}
