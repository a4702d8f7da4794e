package main

import (
	"context"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

// A store holds the samples of all scrapes in memory, as the engine asks for them.
type store struct {
	series      []*series
	first, last time.Time
}

type series struct {
	labels  labels.Labels
	samples []chunks.Sample
}

// A sample is one value.
type sample struct {
	t int64
	v float64
}

func (s sample) T() int64                      { return s.t }
func (s sample) ST() int64                     { return 0 }
func (s sample) F() float64                    { return s.v }
func (s sample) H() *histogram.Histogram       { return nil }
func (s sample) FH() *histogram.FloatHistogram { return nil }
func (s sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s sample) Copy() chunks.Sample           { return s }

func newStore(scrapes []Scrape) (*store, error) {
	s := &store{}
	known := map[string]*series{}
	for i, scrape := range scrapes {
		at := time.UnixMilli(int64(scrape.At * 1000))
		if i == 0 || at.Before(s.first) {
			s.first = at
		}
		if at.After(s.last) {
			s.last = at
		}
		err := samples(scrape, func(l labels.Labels, v float64) {
			x := known[l.String()]
			if x == nil {
				x = &series{labels: l}
				known[l.String()] = x
				s.series = append(s.series, x)
			}
			x.samples = append(x.samples, sample{at.UnixMilli(), v})
		})
		if err != nil {
			return nil, err
		}
	}
	for _, x := range s.series {
		slices.SortFunc(x.samples, func(a, b chunks.Sample) int { return int(a.T() - b.T()) })
	}
	return s, nil
}

// Querier is storage.Queryable's.
func (s *store) Querier(from, to int64) (storage.Querier, error) { return querier{s, from, to}, nil }

type querier struct {
	s        *store
	from, to int64
}

func (q querier) Select(_ context.Context, _ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	set := &seriesSet{at: -1}
next:
	for _, x := range q.s.series {
		for _, m := range matchers {
			if !m.Matches(x.labels.Get(m.Name)) {
				continue next
			}
		}
		var within []chunks.Sample
		for _, v := range x.samples {
			if v.T() >= q.from && v.T() <= q.to {
				within = append(within, v)
			}
		}
		set.all = append(set.all, storage.NewListSeries(x.labels, within))
	}
	slices.SortFunc(set.all, func(a, b storage.Series) int { return labels.Compare(a.Labels(), b.Labels()) })
	return set
}

func (querier) LabelValues(context.Context, string, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

func (querier) LabelNames(context.Context, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

func (querier) Close() error { return nil }

type seriesSet struct {
	all []storage.Series
	at  int
}

func (s *seriesSet) Next() bool                      { s.at++; return s.at < len(s.all) }
func (s *seriesSet) At() storage.Series              { return s.all[s.at] }
func (*seriesSet) Err() error                        { return nil }
func (*seriesSet) Warnings() annotations.Annotations { return nil }
