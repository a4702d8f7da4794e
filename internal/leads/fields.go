package leads

import (
	"regexp"
	"slices"
	"strings"
)

// A fieldKind is what a form's field asks for.
type fieldKind string

// The kinds.
const (
	otherField  fieldKind = "other"
	phoneField  fieldKind = "phone"
	emailField  fieldKind = "email"
	nameField   fieldKind = "full_name"
	firstField  fieldKind = "first_name"
	lastField   fieldKind = "last_name"
	agreesField fieldKind = "consent"
)

// kindOf says what a field asks for, by its name as plain writes it. Meta's own names are
// the same in every language; those of people's own questions are whatever they typed,
// cut by Meta and with underscores for spaces: "quel_est_votre_numéro_de_téléphone_?".
func kindOf(plain string) fieldKind {
	words := strings.Split(plain, "_")
	has := func(any ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return slices.Contains(any, w) })
	}
	begins := func(any ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool {
			return slices.ContainsFunc(any, func(p string) bool { return strings.HasPrefix(w, p) })
		})
	}
	if has("consent", "consentement", "rgpd", "gdpr", "agree", "accepte", "acceptez", "accept", "newsletter", "optin") || strings.Contains(plain, "opt_in") {
		return agreesField
	}
	theNumber := asksForTheNumber(plain, has)
	switch { // a question about something else, in which such a word occurs
	case len(words) > 16,
		has("type", "marque", "modele", "forfait", "operateur", "brand", "model", "plan", "quand", "when", "time", "moment", "how",
			"combien", "nombre", "moyen", "method", "way", "pourquoi", "why", "avez", "possedez", "do"),
		begins("prefer", "heure", "horaire", "assur", "souhait", "abonn"):
		return otherField
	case !theNumber && (has("comment") && !has("vous", "te", "you") || begins("recevoir", "receive", "joign", "rappel")):
		return otherField
	case emails[plain] || has("email", "emails", "mail", "courriel", "mel", "emailaddress") || strings.Contains("_"+plain+"_", "_e_mail_") ||
		begins("electroni") && has("adresse", "courrier", "correo", "address", "mail"):
		return emailField
	case theNumber || phones[plain] || isPhone(has):
		return phoneField
	case has("entreprise", "societe", "company", "business", "produit", "product", "chien", "animal", "enfant", "child", "pet", "utilisateur", "user",
		"username", "projet", "project", "site", "ville", "city", "rue", "street", "magasin", "store", "conjoint", "parrain", "organisation", "ecole", "school",
		"banque", "bank", "conseiller", "advisor", "agence", "agency", "etablissement", "commune", "association", "club"):
		return otherField
	}
	return nameKind(plain, has)
}

// phones and emails are names that the words below would not tell.
var (
	phones = map[string]bool{"contact_number": true, "contact_no": true, "number": true, "votre_numero": true, "votre_n": true, "numero": true, "mon_numero": true,
		"your_number": true, "num": true, "ligne_directe": true, "06": true, "whats_app": true}
	emails = map[string]bool{"contact_email": true, "adresse_mail": true}
)

// asksForTheNumber knows questions that ask for a number whatever else they say: "laissez
// votre numéro de téléphone pour être rappelé".
func asksForTheNumber(plain string, has func(...string) bool) bool {
	if !has("numero", "number", "num", "n") || !isPhone(has) && isOtherNumber(has) {
		return false
	}
	for _, of := range []string{"votre", "ton", "your", "quel", "which", "un", "a", "the"} {
		if has(of) && (isPhone(has) || strings.HasSuffix(plain, "_"+of+"_numero") || strings.HasSuffix(plain, "_"+of+"_number") ||
			has("laissez", "rappele", "rappeler", "joindre", "contacter", "appeler", "call", "reach", "callback")) {
			return true
		}
	}
	return has("callback")
}

func isPhone(has func(...string) bool) bool {
	if has("telephone", "telephones", "telephonique", "telephoniques", "tel", "numtel", "phone", "phone1", "phone2", "phonenumber", "mobile", "portable", "gsm", "whatsapp", "cellphone",
		"cell", "cellulaire", "cellulare", "celular", "handy", "handynummer", "telefon", "telefonnummer", "telefono") {
		return true
	}
	return has("numero", "number", "num") && !isOtherNumber(has) && has("contact", "joindre", "appeler", "call", "reach", "sms")
}

// isOtherNumber knows what else has a number, which may have to be quoted in a call.
func isOtherNumber(has func(...string) bool) bool {
	return has("commande", "order", "dossier", "client", "siret", "siren", "tva", "vat", "contrat", "contract", "rue", "street", "house", "securite", "security",
		"compte", "account", "immatriculation", "registration", "licence", "license", "passport", "passeport", "facture", "invoice", "departement", "suivi",
		"tracking", "reference", "devis", "quote", "serie", "serial", "lot", "carte", "card", "etage", "chambre", "room")
}

func nameKind(plain string, has func(...string) bool) fieldKind {
	first := has("prenom", "prenoms", "firstname", "forename", "givenname", "vorname") || strings.Contains(plain, "first_name") || strings.Contains(plain, "given_name")
	last := has("nom", "surname", "lastname", "familyname", "nachname") || strings.Contains(plain, "last_name") || strings.Contains(plain, "family_name")
	switch {
	case first && last, strings.Contains(plain, "nom_complet"), strings.Contains(plain, "full_name"), plain == "fullname", plain == "nomprenom",
		strings.Contains(plain, "comment_vous_appelez"), strings.Contains(plain, "vous_appelez_vous"):
		return nameField
	case first:
		return firstField
	case last:
		return lastField
	case has("name") && plain != "last" && len(strings.Split(plain, "_")) <= 4:
		return nameField
	}
	return otherField
}

// address is what an e-mail address looks like, well enough to prefer it to what is none.
var address = regexp.MustCompile(`^[^\s@<>]+@[^\s@<>]+\.[^\s@<>.]{2,}$`)
