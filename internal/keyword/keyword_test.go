package keyword_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"leadpipe/internal/keyword"
)

// texts are what people send; keyword "" is no opt-out.
var texts = []struct{ text, keyword string }{
	// The word alone.
	{"STOP", "STOP"},
	{"stop", "STOP"},
	{"Stop", "STOP"},
	{"sToP", "STOP"},
	{"ARRET", "ARRET"},
	{"arret", "ARRET"},
	{"ARRETER", "ARRETER"},
	{"DESABONNER", "DESABONNER"},
	{"UNSUBSCRIBE", "UNSUBSCRIBE"},
	{"Unsubscribe", "UNSUBSCRIBE"},
	{"STOPALL", "STOPALL"},
	{"CANCEL", "CANCEL"},
	{"end", "END"},
	{"QUIT", "QUIT"},
	{"revoke", "REVOKE"},
	{"OPTOUT", "OPTOUT"},
	// Accents, as one letter and as two.
	{"ARRÊT", "ARRET"},
	{"arrêt", "ARRET"},
	{"arre\u0302t", "ARRET"},
	{"Arrêter", "ARRETER"},
	{"DÉSABONNER", "DESABONNER"},
	{"désabonner", "DESABONNER"},
	{"de\u0301sabonner", "DESABONNER"},
	{"Stóp", "STOP"},
	// What surrounds it.
	{"  STOP  ", "STOP"},
	{"\n\tstop\r\n", "STOP"},
	{"\u00a0STOP\u00a0", "STOP"},
	{"STOP.", "STOP"},
	{"STOP!!!", "STOP"},
	{"stop ?", "STOP"},
	{"...stop...", "STOP"},
	{`"STOP"`, "STOP"},
	{"'stop'", "STOP"},
	{"«STOP»", "STOP"},
	{"« Arrêt »", "ARRET"},
	{"“stop”", "STOP"},
	{"(stop)", "STOP"},
	{"*STOP*", "STOP"},
	{"#stop", "STOP"},
	{"STOP🛑", "STOP"},
	{"🛑 stop 🛑", "STOP"},
	{"✋🏽 STOP", "STOP"},
	// How a phone may write it.
	{"ＳＴＯＰ", "STOP"},
	{"ｓｔｏｐ", "STOP"},
	{"\u200bSTOP\u200b", "STOP"},
	{"\ufeffSTOP", "STOP"},
	{"\u200fSTOP\u200e", "STOP"},
	{"ST\u00adOP", "STOP"},
	{"S.T.O.P.", "STOP"},
	{"OPT-OUT", "OPTOUT"},
	{"¡STOP!", "STOP"},
	{"-stop-", "STOP"},
	// The first word.
	{"STOP 36123", "STOP"},
	{"stop au 36123", "STOP"},
	{"STOP36123", "STOP"},
	{"Stop36 123", "STOP"},
	{"ARRET 38001", "ARRET"},
	{"stop merci", "STOP"},
	{"Stop svp", "STOP"},
	{"STOP PLEASE", "STOP"},
	{"stop sms", "STOP"},
	{"Stop pub", "STOP"},
	{"stop ALL", "STOP"},
	{"STOP je ne veux plus recevoir vos messages", "STOP"},
	{"stop!!!!! vous m'embêtez", "STOP"},
	{"Stop, c'est la troisième fois que je vous le demande.", "STOP"},
	{"STOP\nEnvoyé de mon iPhone", "STOP"},
	{"STOP-SMS", "STOP"},
	{"arrêt svp", "ARRET"},
	{"Arrêter de m'envoyer des messages", "ARRETER"},
	{"Désabonner merci", "DESABONNER"},
	{"unsubscribe me please", "UNSUBSCRIBE"},
	{"Quit texting me", "QUIT"},
	{"opt-out please", "OPTOUT"},
	{"S.T.O.P. merci", "STOP"},
	{"... - opt-out, merci", "OPTOUT"},
	{"Stop!Arrêtez", "STOP"},
	{"stop stop stop", "STOP"},
	// The first word decides even where it means something else.
	{"arrêt maladie demain", "ARRET"},
	{"Stop ou encore ?", "STOP"},
	{"End of the month works for me", "END"},
	{"Cancel my appointment please", "CANCEL"},
	// The word elsewhere, or only nearly.
	{"ne pas arreter", ""},
	{"Ne pas arrêter !", ""},
	{"je ne veux pas arrêter", ""},
	{"non stop", ""},
	{"Non-stop depuis lundi", ""},
	{"nonstop", ""},
	{"stoppez", ""},
	{"Stopper", ""},
	{"STOPP", ""},
	{"stops", ""},
	{"autostop", ""},
	{"j'ai un arrêt maladie", ""},
	{"l'arrêt de bus", ""},
	{"d'arrêt", ""},
	{"Rendez-vous à l'arrêt Bellecour", ""},
	{"ending", ""},
	{"endormi, je vous rappelle", ""},
	{"cancelled", ""},
	{"quitte ou double", ""},
	{"weekend", ""},
	{"please stop", ""},
	{"opt for it", ""},
	{"opt out", ""}, // not as one word
	{"S T O P", ""},
	{"STO P", ""},
	{"stopsms", ""},
	{"stop\u00adpez", ""}, // what can't be seen does not end a word
	{"arrêtez", ""},       // the list is closed: near misses are read by a person, as any text
	{"Arrête tout", ""},
	{"désabonnement", ""},
	{"me désabonner", ""},
	{"Merci de ne pas stopper", ""},
	{"Endives au jambon", ""},
	{"I quit", ""},
	{"the end", ""},
	{"merci de me désabonner", ""},
	{"36123 STOP", ""},
	{"Oui", ""},
	{"OK pour jeudi 14h", ""},
	{"Bonjour, je suis intéressée par votre offre", ""},
	{"Combien ça coûte ?", ""},
	{"START", ""},
	{"UNSTOP", ""},
	{"HELP", ""},
	{"CONTACT", ""},
	{"", ""},
	{"   ", ""},
	{"?!…", ""},
	{"🛑", ""},
	{"36123", ""},
	{"06 39 98 01 02", ""},
	{"ЅТОР", ""}, // Cyrillic letters that look the same
	{"\xff\xfe", ""},
}

func TestOptOut(t *testing.T) {
	t.Parallel()
	for _, c := range texts {
		got, ok := keyword.OptOut(c.text)
		if got != c.keyword || ok != (c.keyword != "") {
			t.Errorf("OptOut(%q) = %q, %v; want %q", c.text, got, ok, c.keyword)
		}
	}
}

func TestOptIn(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"START":        true,
		"start":        true,
		" Stàrt! ":     true,
		"start36123":   true,
		"STA\u200bRT":  true,
		"Start svp":    false, // not only the word
		"UNSTOP":       true,
		"STOP":         false,
		"YES":          false, // Twilio takes it; too loose for consent
		"restart":      false,
		"starter":      false,
		"Please start": false,
		"":             false,
	} {
		if got := keyword.OptIn(text); got != want {
			t.Errorf("OptIn(%q) = %v", text, got)
		}
	}
}

// FuzzOptOut holds what is said of the surroundings against every text.
func FuzzOptOut(f *testing.F) {
	for _, c := range texts {
		f.Add(c.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		word, ok := keyword.OptOut(text)
		if ok != (word != "") {
			t.Fatalf("OptOut(%q) = %q, %v", text, word, ok)
		}
		if ok && keyword.OptIn(text) {
			t.Fatalf("%q opts out and in", text)
		}
		if !utf8.ValidString(text) {
			return
		}
		for _, around := range []string{" " + text + " ", "« " + text + " »", text + "!", "\u200b" + text, "…" + text, strings.ToLower(text)} {
			if again, _ := keyword.OptOut(around); again != word {
				t.Fatalf("OptOut(%q) = %q, and with other surroundings %q is %q", text, word, around, again)
			}
		}
		if again, ok := keyword.OptOut("STOP " + text); !ok || again != "STOP" {
			t.Fatalf("%q after STOP undoes it", text)
		}
	})
}
