package state_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"leadpipe/internal/natstest"
	"leadpipe/internal/state"
)

const accounts = 4

// A txn reads some records and writes others; what it read is what it returns.
type txn struct {
	reads  []int
	writes map[int]int
}

// bank is the specification: transactions happen one at a time, in an order that
// agrees with the clock.
var bank = porcupine.Model{
	Init: func() any { return [accounts]int{} },
	Step: func(s, in, out any) (bool, any) {
		now, t, seen := s.([accounts]int), in.(txn), out.([]int)
		for i, k := range t.reads {
			if now[k] != seen[i] {
				return false, now
			}
		}
		for k, v := range t.writes {
			now[k] = v
		}
		return true, now
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprintf("%v read %v", in, out) },
}

func account(i int) string { return fmt.Sprintf("customer.%d", i) }

// history runs random transactions from several workers, some alone and some folded,
// and notes when each began and ended. A transaction that reads records and writes
// none is left out: it is not committed, and on a cluster may see a replica that is
// late (see Store.fetch).
func history(t *testing.T, b *bucket, workers, each int) []porcupine.Operation {
	t.Helper()
	var mu sync.Mutex
	var ops []porcupine.Operation
	var wg sync.WaitGroup
	start := time.Now()
	for w := range workers {
		s := b.store(nil)
		rng := rand.New(rand.NewPCG(uint64(w), 7))
		wg.Go(func() {
			for i := range each {
				n := 1 + rng.IntN(3)
				txns, seen := make([]txn, n), make([][]int, n)
				for j := range txns {
					txns[j] = txn{writes: map[int]int{rng.IntN(accounts): 1 + w*10000 + i*10 + j}}
					txns[j].reads = rng.Perm(accounts)[:1+rng.IntN(3)]
					if rng.IntN(3) == 0 {
						txns[j].writes[rng.IntN(accounts)] = 1 + w*10000 + i*10 + j
					}
				}
				decide := func(tx *state.Tx, j int) error {
					read := make([]int, 0, accounts)
					for _, k := range txns[j].reads {
						r, _, err := state.Get[number](tx, account(k))
						if err != nil {
							return err
						}
						read = append(read, r.N)
					}
					for k, v := range txns[j].writes {
						if err := tx.Put(account(k), number{N: v}); err != nil {
							return err
						}
					}
					seen[j] = read
					return nil
				}
				called := time.Since(start).Nanoseconds()
				for j, err := range s.Fold(t.Context(), n, decide, nil) {
					if err != nil {
						t.Errorf("transaction %d: %v", j, err)
						return
					}
				}
				returned := time.Since(start).Nanoseconds()
				mu.Lock()
				for j := range txns {
					ops = append(ops, porcupine.Operation{ClientId: w*10 + j, Input: txns[j], Output: seen[j], Call: called, Return: returned})
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return ops
}

func TestTransactionsAreLinearizable(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]natstest.Option{"one server": {natstest.LazySync}, "cluster": {natstest.LazySync, natstest.Cluster}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ops := history(t, open(t, opts...), 4, 25)
			result, _ := porcupine.CheckOperationsVerbose(bank, ops, 30*time.Second)
			if result != porcupine.Ok {
				t.Errorf("%d transactions: %s", len(ops), result)
			}
		})
	}
}
