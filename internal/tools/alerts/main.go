// Command alerts says which alerting rules fire over what programs served, and which
// metrics rules and expressions name. It parses and evaluates with Prometheus's own code.
//
// It reads one JSON object, a Question, on stdin and writes one, an Answer, on stdout. It
// is a module of its own so that nothing else compiles Prometheus.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// A Question is a file of rules, what was scraped, and expressions to look at.
type Question struct {
	Rules   string   `json:"rules"` // path
	Scrapes []Scrape `json:"scrapes"`
	Exprs   []string `json:"exprs"`
}

// A Scrape is what a program served at a time. Text is empty where it did not answer.
type Scrape struct {
	Job  string  `json:"job"`
	At   float64 `json:"at"` // seconds
	Text string  `json:"text"`
}

// An Answer names the rules, those that fire at the end of the scrapes, and every metric
// that rules and expressions name.
type Answer struct {
	Rules   []Rule   `json:"rules"`
	Firing  []string `json:"firing"`
	Metrics []string `json:"metrics"`
}

// A Rule is an alert and where its explanation is.
type Rule struct {
	Alert   string `json:"alert"`
	Runbook string `json:"runbook"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var q Question
	if err := json.NewDecoder(os.Stdin).Decode(&q); err != nil {
		return fmt.Errorf("reading the question: %w", err)
	}
	p := parser.NewParser(parser.Options{})
	groups, errs := rulefmt.ParseFile(q.Rules, false, model.UTF8Validation, p, slog.New(slog.DiscardHandler))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("reading %s: %w", q.Rules, err)
	}
	store, err := newStore(q.Scrapes)
	if err != nil {
		return err
	}
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, LookbackDelta: 5 * time.Minute, Parser: p})
	var a Answer
	exprs := slices.Clone(q.Exprs)
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			a.Rules = append(a.Rules, Rule{r.Alert, r.Annotations["runbook"]})
			exprs = append(exprs, r.Expr)
			fires, err := fires(engine, store, r)
			if err != nil {
				return fmt.Errorf("%s: %w", r.Alert, err)
			}
			if fires {
				a.Firing = append(a.Firing, r.Alert)
			}
		}
	}
	if a.Metrics, err = named(p, exprs); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(a)
}

// step is how often rules are evaluated.
const step = 15 * time.Second

// fires evaluates a rule over the whole time and says whether it fires at the end.
func fires(engine *promql.Engine, s *store, r rulefmt.Rule) (bool, error) {
	var since time.Time // the expression holds
	for t := s.first; !t.After(s.last); t = t.Add(step) {
		q, err := engine.NewInstantQuery(context.Background(), s, nil, r.Expr, t)
		if err != nil {
			return false, err
		}
		res := q.Exec(context.Background())
		if res.Err != nil {
			return false, res.Err
		}
		v, err := res.Vector()
		if err != nil {
			return false, err
		}
		switch {
		case len(v) == 0:
			since = time.Time{}
		case since.IsZero():
			since = t
		}
		q.Close()
	}
	return !since.IsZero() && s.last.Sub(since) >= time.Duration(r.For), nil
}

// named lists the metrics that expressions name.
func named(p parser.Parser, exprs []string) ([]string, error) {
	var names []string
	for _, e := range exprs {
		expr, err := p.ParseExpr(e)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e, err)
		}
		parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
			if v, ok := n.(*parser.VectorSelector); ok {
				names = append(names, v.Name)
			}
			return nil
		})
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// samples makes samples of what a program served.
func samples(scrape Scrape, add func(labels.Labels, float64)) error {
	up := 1.0
	if scrape.Text == "" {
		up = 0
	}
	add(labels.FromStrings(labels.MetricName, "up", "job", scrape.Job), up)
	parse := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parse.TextToMetricFamilies(strings.NewReader(scrape.Text))
	if err != nil {
		return fmt.Errorf("reading the metrics of %s: %w", scrape.Job, err)
	}
	for name, f := range families {
		for _, m := range f.Metric {
			b := labels.NewBuilder(labels.FromStrings(labels.MetricName, name, "job", scrape.Job))
			for _, l := range m.Label {
				b.Set(l.GetName(), l.GetValue())
			}
			switch f.GetType() {
			case dto.MetricType_COUNTER:
				add(b.Labels(), m.Counter.GetValue())
			case dto.MetricType_GAUGE:
				add(b.Labels(), m.Gauge.GetValue())
			case dto.MetricType_HISTOGRAM:
				add(b.Set(labels.MetricName, name+"_count").Labels(), float64(m.Histogram.GetSampleCount()))
				add(b.Set(labels.MetricName, name+"_sum").Labels(), m.Histogram.GetSampleSum())
				for _, k := range m.Histogram.Bucket {
					add(b.Set(labels.MetricName, name+"_bucket").Set("le", fmt.Sprint(k.GetUpperBound())).Labels(), float64(k.GetCumulativeCount()))
				}
			}
		}
	}
	return nil
}
